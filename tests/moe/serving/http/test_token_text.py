"""Text comes as the tokenizer would decode it, however it is cut into tokens."""

import random

import pytest

from finlora.experts.base_model import load_tokenizer
from finlora.moe.serving.http.token_text import AnswerText, Vocabulary
from finlora.moe.serving.requests import TokenEvent

TEXT = "The value of Goodwill is 5,120 €, up 3 % (see note).\n\nNaïve façade 🙂 in 財務報告; us-gaap:Assets\n"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return Vocabulary(tokenizer, size=len(tokenizer), end_ids=[tokenizer.eos_token_id])


def pieces_of(vocabulary, tokens, stops=()):
    answer = AnswerText(vocabulary, stops)
    pieces = []
    for token in tokens:
        pieces += answer.push(TokenEvent(token_id=token))
        if answer.stopped:
            return pieces
    return pieces + answer.finish()


def test_pieces_add_up_to_what_the_tokenizer_decodes(tokenizer, vocabulary):
    tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    pieces = pieces_of(vocabulary, tokens)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert [piece.event.token_id for piece in pieces] == tokens


def test_any_tokens_give_what_the_tokenizer_decodes(tokenizer, vocabulary):
    source = random.Random(0)
    for _ in range(200):
        tokens = [source.randrange(len(tokenizer)) for _ in range(30)]
        text = "".join(piece.text for piece in pieces_of(vocabulary, tokens))
        assert text == tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def cut_slowly(tokenizer, tokens, stops) -> str:
    """Search in all text so far after each token, as if nothing were given out before."""
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count])
        if found := [text.index(stop) for stop in stops if stop in text]:
            return text[: min(found)]
    raise AssertionError("no stop string is in the text")


def test_stop_strings_cut_where_a_search_after_each_token_finds_them(tokenizer, vocabulary):
    source = random.Random(1)
    tokens = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for _ in range(200):
        begins = [source.randrange(len(TEXT)) for _ in range(2)]
        stops = [TEXT[begin : begin + source.randrange(1, 9)] for begin in begins]
        text = "".join(piece.text for piece in pieces_of(vocabulary, tokens, stops))
        assert text == cut_slowly(tokenizer, tokens, stops)


def test_nothing_is_held_back_that_no_stop_string_can_begin_with(tokenizer, vocabulary):
    answer = AnswerText(vocabulary, ["\n\n"])
    tokens = tokenizer("a b c", add_special_tokens=False)["input_ids"]
    assert all(answer.push(TokenEvent(token_id=token)) for token in tokens)
