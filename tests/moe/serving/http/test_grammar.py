"""Whatever is drawn from what a grammar allows is JSON that fits the schema."""

import json

import jsonschema
import pytest
import torch

from finlora.experts.base_model import load_tokenizer
from finlora.moe.serving.http.grammar import compile_format
from finlora.moe.serving.http.openai_requests import ResponseFormat
from finlora.moe.serving.http.token_text import Vocabulary
from finlora.moe.serving.requests import InvalidRequestError, TokenConstraint

SCHEMA = {
    "type": "object",
    "properties": {
        "tag": {"type": "string", "pattern": "^us-gaap:[A-Z][a-z]{2,8}$"},
        "value": {"type": "integer", "minimum": 0, "maximum": 999},
        "periods": {"type": "array", "items": {"enum": ["FY2023", "FY2024"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["tag", "value", "periods"],
    "additionalProperties": False,
}
EXTRA_LOGITS = 10


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    """Of a base that has logits for more tokens than its tokenizer has, as published ones do."""
    return Vocabulary(tokenizer, size=len(tokenizer) + EXTRA_LOGITS, end_ids=[tokenizer.eos_token_id])


def draw(constraint: TokenConstraint, end: int, seed: int, most: int = 200) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    while len(tokens) < most:
        allowed = constraint.allowed().float()
        token = int(torch.multinomial(allowed, 1, generator=generator))
        constraint.accept(token)
        if token == end:
            return tokens
        tokens.append(token)
    raise AssertionError("the grammar never ended")


def schema_format(schema: dict) -> ResponseFormat:
    return ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"schema": schema}})


def test_random_answers_fit_the_schema(tokenizer, vocabulary):
    for seed in range(10):
        constraint = compile_format(schema_format(SCHEMA), vocabulary, schema_limit=10_000)
        assert isinstance(constraint, TokenConstraint)
        assert constraint.allowed().shape == (len(tokenizer) + EXTRA_LOGITS,)
        tokens = draw(constraint, tokenizer.eos_token_id, seed)
        jsonschema.validate(json.loads(tokenizer.decode(tokens)), SCHEMA)


def test_after_the_end_only_the_end_may_follow(tokenizer, vocabulary):
    constraint = compile_format(schema_format({"const": 5}), vocabulary, schema_limit=100)
    draw(constraint, tokenizer.eos_token_id, seed=0)
    assert constraint.allowed().nonzero().flatten().tolist() == [tokenizer.eos_token_id]


def test_a_token_against_the_grammar_ends_the_answer(tokenizer, vocabulary):
    constraint = compile_format(schema_format({"const": 5}), vocabulary, schema_limit=100)
    constraint.accept(tokenizer("no", add_special_tokens=False)["input_ids"][0])
    assert constraint.allowed().nonzero().flatten().tolist() == [tokenizer.eos_token_id]


def test_json_object_allows_any_object_and_text_everything(tokenizer, vocabulary):
    assert compile_format(ResponseFormat(type="text"), vocabulary, schema_limit=100) is None
    constraint = compile_format(ResponseFormat(type="json_object"), vocabulary, schema_limit=100)
    for token in tokenizer('{"a": [1, "b"]}', add_special_tokens=False)["input_ids"]:
        assert constraint.allowed()[token]
        constraint.accept(token)
    assert constraint.allowed()[tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "nonsense"}, "cannot be followed"),
        ({"$ref": "https://example.com/x.json"}, "cannot be followed"),
        ({"type": "object", "unevaluatedProperties": {"$ref": "#/nowhere"}}, "cannot be followed"),
        ({"enum": ["x" * 200]}, "at most 100"),
    ],
)
def test_schemas_that_cannot_be_followed_are_refused(vocabulary, schema, text):
    with pytest.raises(InvalidRequestError, match=text) as caught:
        compile_format(schema_format(schema), vocabulary, schema_limit=100)
    assert caught.value.parameter == "constraint"


def test_without_an_end_token_there_is_no_schema(tokenizer):
    endless = Vocabulary(tokenizer, size=len(tokenizer), end_ids=[])
    with pytest.raises(InvalidRequestError, match="no token that ends"):
        compile_format(schema_format(SCHEMA), endless, schema_limit=10_000)
