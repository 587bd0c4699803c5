"""The official client against a real server on a random base of Llama-3's architecture."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import NotFoundError

from finlora.experts.base_model import load_base
from finlora.experts.encoding import encode_prompt
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter

from ..conftest import greedy

PROMPT = "What is the value of Goodwill? Answer:"


@pytest.fixture
def client(shared_url, connect):
    return connect(shared_url)


def test_the_base_is_llama_3s_architecture(idle_base):
    config = idle_base.model.config
    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.num_key_value_heads < config.num_attention_heads


def test_a_completion_is_what_generate_answers(client, idle_base):
    base = idle_base
    prompt = encode_prompt(base.tokenizer, PROMPT)
    answer = client.completions.create(
        model="base", prompt=PROMPT, max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
    )
    tokens = greedy(base.model, prompt, 12)
    assert answer.choices[0].text == base.tokenizer.decode(tokens, skip_special_tokens=True)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), 12)
    assert answer.choices[0].finish_reason == "length"


def test_an_expert_answers_as_it_does_alone(client, llama3_folder, folders):
    base = load_base(str(llama3_folder), "none")
    bank = ExpertBank.from_folders({"e2": folders["e2"]}, base, trust_base_name=True)
    alone = MixtureForCausalLM.build(base, bank, ConstantRouter([1.0]))
    answer = client.completions.create(
        model="e2", prompt=PROMPT, max_tokens=12, temperature=0, extra_body={"ignore_eos": True}
    )
    tokens = greedy(alone, encode_prompt(base.tokenizer, PROMPT), 12)
    assert answer.choices[0].text == base.tokenizer.decode(tokens, skip_special_tokens=True)
    assert answer.choices[0].finlora_model == "e2@1"


@pytest.mark.parametrize("model", ["base", "e1", '{"e0": 0.7, "e2": -0.3}'])
def test_streams_add_up_to_the_whole_answer(client, model):
    ask = {"model": model, "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
    whole = client.completions.create(**ask)
    chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].text
    assert len(chunks) > 10
    assert chunks[-1].usage == whole.usage
    ends = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert ends == [None] * (len(ends) - 1) + [whole.choices[0].finish_reason]


def test_chat_uses_the_template(client, idle_base):
    answer = client.chat.completions.create(
        model="e2", messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0, seed=1
    )
    spelled = client.completions.create(
        model="e2",
        prompt=idle_base.tokenizer("<bos>[user] Hello\n[assistant]", add_special_tokens=False)["input_ids"],
        max_tokens=8,
        temperature=0,
    )
    assert answer.choices[0].message.content == spelled.choices[0].text
    assert answer.choices[0].message.role == "assistant"
    assert answer.object == "chat.completion"


def test_chat_streams(client):
    ask = {"model": "e2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "seed": 4}
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in chunks[1:]].count("assistant") == 0


def test_equal_seeds_give_equal_answers_and_n_gives_different_ones(client):
    ask = {"model": "e1", "prompt": PROMPT, "max_tokens": 12, "seed": 7, "n": 3}
    first, second = client.completions.create(**ask), client.completions.create(**ask)
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert len(set(texts)) == 3
    assert client.completions.create(**ask | {"seed": 8, "n": 1}).choices[0].text == texts[1]


def test_several_prompts_are_answered_in_order(client):
    alone = [
        client.completions.create(model="e1", prompt=prompt, max_tokens=6, temperature=0).choices[0].text
        for prompt in ("One", "Two")
    ]
    both = client.completions.create(model="e1", prompt=["One", "Two"], max_tokens=6, temperature=0)
    assert [choice.text for choice in both.choices] == alone


def test_logprobs_of_completions(client):
    answer = client.completions.create(
        model="e1", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3, extra_body={"ignore_eos": True}
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 6
    for own, top in zip(logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert own == pytest.approx(max(top.values()))


def test_logprobs_of_chat(client):
    answer = client.chat.completions.create(
        model="e1",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=6,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    for token in answer.choices[0].logprobs.content:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert len(token.top_logprobs) == 2
    raw = bytes(byte for token in answer.choices[0].logprobs.content for byte in token.bytes)
    assert raw.decode("utf-8", "replace").removesuffix("<eos>") == answer.choices[0].message.content


def test_routing_weights_come_on_request(client):
    answer = client.completions.create(
        model="mix", prompt=PROMPT, max_tokens=5, temperature=0, extra_body={"finlora_routing": True}
    )
    routed = answer.choices[0].finlora_routing
    assert "".join(token["text"] for token in routed) == answer.choices[0].text
    assert all(set(token["weights"]) == {"e0@1", "e1@1"} for token in routed)
    assert all(sum(token["weights"].values()) == pytest.approx(1, abs=1e-4) for token in routed)
    plain = client.completions.create(model="mix", prompt=PROMPT, max_tokens=5, temperature=0)
    assert plain.choices[0].text == answer.choices[0].text
    assert plain.choices[0].finlora_routing is None


def test_json_schema_is_followed(client):
    schema = {
        "type": "object",
        "properties": {"value": {"type": "integer", "maximum": 99}, "unit": {"enum": ["USD", "EUR"]}},
        "required": ["value", "unit"],
        "additionalProperties": False,
    }
    for seed in range(3):
        answer = client.chat.completions.create(
            model="e1",
            messages=[{"role": "user", "content": "Hi"}],
            seed=seed,
            max_tokens=100,
            response_format={"type": "json_schema", "json_schema": {"name": "cash", "schema": schema}},
        )
        assert answer.choices[0].finish_reason == "stop"
        value = json.loads(answer.choices[0].message.content)
        assert set(value) == {"value", "unit"}
        assert value["unit"] in ("USD", "EUR")
        assert value["value"] <= 99


def test_models_are_listed(client):
    kinds = {model.id: model.kind for model in client.models.list()}
    assert kinds == {"base": "base", "mix": "mixture"} | {f"e{i}": "expert" for i in range(3)}
    assert client.models.retrieve("mix").kind == "mixture"
    with pytest.raises(NotFoundError, match="near names are mix"):
        client.models.retrieve("mixx")


def test_all_kinds_of_models_are_answered_at_once_as_alone(client):
    models = ["base", "e0", "e2", "mix", '{"e0": 0.7, "e1": 0.3}'] * 4
    asks = [
        {"model": model, "prompt": f"{PROMPT} {i}", "max_tokens": 10, "temperature": 0}
        for i, model in enumerate(models)
    ]
    alone = [client.completions.create(**ask).choices[0].text for ask in asks]
    with ThreadPoolExecutor(len(asks)) as pool:
        together = list(pool.map(lambda ask: client.completions.create(**ask).choices[0].text, asks))
    assert together == alone
    assert len(set(alone)) > 10
