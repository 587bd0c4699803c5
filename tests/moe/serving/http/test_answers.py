"""What the API makes of an engine's events, with an engine whose answers the test writes."""

import json
import threading
import time
from dataclasses import replace

import httpx
import openai
import pytest

from finlora.moe.serving.requests import (
    BusyError,
    FinishEvent,
    GenerationRequest,
    InvalidRequestError,
    QuarantinedModelError,
)

from .conftest import ScriptedEngine

ASK = {"model": "base", "prompt": "Hello", "max_tokens": 400}


@pytest.fixture
def start(serve):
    """A maker of servers around a script; gives the engine and the address."""

    def make(answer, **settings) -> tuple[ScriptedEngine, str]:
        engine = ScriptedEngine(answer if callable(answer) else lambda _: answer)
        return engine, serve(engine, **settings)

    return make


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["\n\n"], "first\nsecond"),
        (["second", "first\nse"], ""),
        ("sec", "first\n"),
        (["absent"], "first\nsecond\n\nthird €5"),
        (["€"], "first\nsecond\n\nthird "),
        (["5"], "first\nsecond\n\nthird €"),
    ],
)
def test_stop_strings_end_an_answer_and_are_left_out(start, spell, connect, stops, expected, stream):
    engine, url = start(spell("first\nsecond\n\nthird €5"))
    answer = connect(url).completions.create(**ASK, stop=stops, stream=stream)
    chunks = list(answer) if stream else [answer]
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "stop"
    stopped = expected != "first\nsecond\n\nthird €5"
    assert engine.tickets[0].cancelled.is_set() == stopped


def test_characters_of_several_tokens_come_whole(start, spell, connect):
    _, url = start(spell("a€b🙂".encode() + b"\xff\xe2\x82"))
    chunks = list(connect(url).completions.create(**ASK, stream=True))
    texts = [chunk.choices[0].text for chunk in chunks]
    assert "".join(texts) == "a€b🙂\ufffd\ufffd"
    assert all("\ufffd" not in text for text in texts[:4])


def test_logprobs_and_routing_go_with_their_text(start, spell, connect):
    _, url = start(spell("ab€cd", routing={"e0": 0.25, "e1": 0.75}))
    answer = connect(url).completions.create(
        **ASK, stop="d", logprobs=0, extra_body={"finlora_routing": True}
    )
    choice = answer.choices[0]
    assert choice.text == "ab€c"
    assert len(choice.logprobs.tokens) == 6
    assert choice.logprobs.text_offset == [0, 1, 2, 2, 2, 3]
    assert [token["text"] for token in choice.finlora_routing] == ["a", "b", "", "", "€", "c"]
    assert choice.finlora_routing[0]["weights"] == {"e0": 0.25, "e1": 0.75}


def test_fields_reach_the_engine(start, spell, connect):
    engine, url = start(spell("x"))
    connect(url).completions.create(
        model="e1",
        prompt=[5, 6, 7],
        max_tokens=9,
        temperature=0.5,
        top_p=0.25,
        seed=-3,
        logprobs=2,
        n=2,
        extra_body={"top_k": 4, "ignore_eos": True, "finlora_deadline_seconds": 3.5, "finlora_routing": True},
    )
    assert engine.requests == [
        GenerationRequest(
            prompt_ids=[5, 6, 7],
            model="e1",
            max_new_tokens=9,
            temperature=0.5,
            top_p=0.25,
            top_k=4,
            seed=seed,
            top_logprobs=2,
            ignore_eos=True,
            report_routing=True,
            deadline_seconds=3.5,
        )
        for seed in (-3, -2)
    ]


def test_chat_without_a_template_continues_one_users_message_as_a_completion(
    serve, spell, connect, idle_base, tiny_tokenizer
):
    engine = ScriptedEngine(lambda _: spell("x"))
    client = connect(serve(engine, base=replace(idle_base, tokenizer=tiny_tokenizer)))
    client.completions.create(model="base", prompt="Question. Answer:", max_tokens=5)
    client.chat.completions.create(model="base", messages=[{"role": "user", "content": "Question. Answer:"}])
    assert engine.requests[0].prompt_ids == engine.requests[1].prompt_ids
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        )


def test_chat_fills_the_base_by_default_and_completions_have_16_tokens(start, spell, connect):
    engine, url = start(spell("x"))
    connect(url).completions.create(model="base", prompt="abc")
    connect(url).chat.completions.create(model="base", messages=[{"role": "user", "content": "abc"}])
    assert [one.max_new_tokens for one in engine.requests] == [16, 512 - len(engine.requests[1].prompt_ids)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", [0, 3])
def test_a_client_that_hangs_up_cancels_its_requests(start, spell, stream, first):
    never = threading.Event()
    engine, url = start([*spell("abc")[:first], never, *spell("rest")])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/completions", json=ASK | {"stream": stream, "n": 2}, timeout=0.3)
    wait_until(lambda: len(engine.tickets) == 2 and all(one.cancelled.is_set() for one in engine.tickets))
    with httpx.Client(base_url=url) as client:
        wait_until(lambda: 'finish="cancelled",kind="base",model="base"} 2.0' in client.get("/metrics").text)


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (FinishEvent(reason="aborted", message="Too late."), 429, "first_token_too_late"),
        (FinishEvent(reason="failed", message="The batch failed."), 503, "generation_failed"),
        (FinishEvent(reason="cancelled", message="The server stops."), 503, "cancelled"),
        (TimeoutError("no token"), 503, None),
        (ValueError("a defect"), 500, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_ends_that_are_no_answers_are_errors(start, end, status, code, stream):
    _, url = start([end])
    answer = httpx.post(f"{url}/v1/completions", json=ASK | {"stream": stream})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) == (status == 429)
    assert "a defect" not in answer.text


def test_an_error_in_the_middle_of_a_stream_is_told_in_it(start, spell, connect):
    _, url = start([*spell("abc")[:3], FinishEvent(reason="failed", message="The batch failed.")])
    texts = []
    with pytest.raises(openai.APIError, match="The batch failed"):
        texts.extend(chunk.choices[0].text for chunk in connect(url).completions.create(**ASK, stream=True))


def test_an_expert_that_went_to_quarantine_is_409(start, registry):
    registry.quarantine(registry.resolve("e1"), "it is not finite")
    _, url = start([FinishEvent(reason="failed", message="The cause is e1.")], registry=registry)
    answer = httpx.post(f"{url}/v1/completions", json=ASK | {"model": "e1"})
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == "The cause is e1."


def test_a_deadline_ends_an_answer_with_what_there_is(start, spell, connect):
    _, url = start([*spell("abc")[:3], FinishEvent(reason="deadline", new_tokens=3)])
    choice = connect(url).completions.create(**ASK).choices[0]
    assert (choice.text, choice.finish_reason) == ("abc", "deadline")


@pytest.mark.parametrize(
    ("error", "status", "parameter"),
    [
        (BusyError("The queue is full."), 429, None),
        (QuarantinedModelError("e1 is in quarantine."), 409, "model"),
        (InvalidRequestError("max_new_tokens", "Too many."), 400, "max_tokens"),
        (InvalidRequestError("temperature", "Too hot."), 400, "temperature"),
    ],
)
def test_what_the_engine_refuses(start, error, status, parameter):
    def refuse(_):
        raise error

    _, url = start(refuse)
    answer = httpx.post(f"{url}/v1/completions", json=ASK)
    assert answer.status_code == status
    assert answer.json()["error"] == {
        **answer.json()["error"],
        "message": str(error),
        "param": parameter,
    }


def test_a_request_that_is_refused_in_part_is_cancelled_whole(start, spell):
    scripts = iter([[threading.Event()], None])

    def answer(_):
        script = next(scripts)
        if script is None:
            raise BusyError("full")
        return script

    engine, url = start(answer)
    assert httpx.post(f"{url}/v1/completions", json=ASK | {"n": 2}).status_code == 429
    assert engine.tickets[0].cancelled.is_set()


def test_metrics_count_by_model(start, spell):
    _, url = start(spell("abc"))
    for model in ("base", "e1", "e1", {"e1": 0.5}):
        assert httpx.post(f"{url}/v1/completions", json=ASK | {"model": model}).status_code == 200
    httpx.post(f"{url}/v1/completions", json=ASK | {"n": 0})
    text = httpx.get(f"{url}/metrics").text
    for line in (
        'finlora_requests_total{finish="stop",kind="expert",model="e1"} 2.0',
        'finlora_requests_total{finish="stop",kind="weights",model="weights"} 1.0',
        'finlora_tokens_total{kind="expert",model="e1",side="new"} 6.0',
        'finlora_first_token_seconds_count{kind="base"} 1.0',
        'finlora_http_answers_total{path="/v1/completions",status="200"} 4.0',
        'finlora_http_answers_total{path="/v1/completions",status="400"} 1.0',
        "finlora_queued 0.0",
        "finlora_loads_total 0.0",
    ):
        assert line in text, text


def test_chunks_are_json_in_ascii(start, spell):
    _, url = start(spell("€"))
    answer = httpx.post(f"{url}/v1/completions", json=ASK | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = answer.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    assert "".join(json.loads(chunk[6:])["choices"][0]["text"] for chunk in chunks) == "€"
