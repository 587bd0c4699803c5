"""Bad input gets an error in OpenAI's format that names the field, and never a 500."""

import json

import httpx
import pytest

from finlora.moe.serving.http.keys import Client, Keys

from .conftest import ScriptedEngine

KEY, OTHER_KEY = "a-key-of-bank-a-0001", "a-key-of-bank-b-0002"
ASK = {"model": "base", "prompt": "Hello"}
CHAT = {"model": "base", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def post(serve, spell):
    """Sends bodies, as JSON or as bytes, to a server with an engine that answers x."""
    url = serve(ScriptedEngine(lambda _: spell("x")), body_limit=20_000)

    def send(body: object, path: str = "completions") -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        return httpx.post(f"{url}/v1/{path}", content=content, headers=headers, timeout=30)

    return send


def test_fields_with_impossible_values_are_named(post):
    cases = [
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": [5, "a"]}),
        ("prompt", {"prompt": [-1]}),
        ("prompt", {"prompt": "x" * 600}),
        ("prompt", {"prompt": "\ud800"}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 508}),
        ("max_tokens", {"max_tokens": 10**40}),
        ("max_tokens", {"max_tokens": "5"}),
        ("max_tokens", {"max_tokens": 5.5}),
        ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": float("nan")}),
        ("temperature", {"temperature": float("inf")}),
        ("top_p", {"top_p": 0}),
        ("top_k", {"top_k": -1}),
        ("seed", {"seed": 2**63}),
        ("n", {"n": 0}),
        ("n", {"n": 33}),
        ("n", {"n": 20, "prompt": ["a", "b"]}),
        ("stop", {"stop": ""}),
        ("stop", {"stop": ["a"] * 17}),
        ("logprobs", {"logprobs": 21}),
        ("logprobs", {"logprobs": True}),
        ("echo", {"echo": True}),
        ("presence_penalty", {"presence_penalty": 0.5}),
        ("logit_bias", {"logit_bias": {"5": 1}}),
        ("bananas", {"bananas": 1}),
        ("model", {"model": 5}),
        ("model", {"model": {}}),
        ("model", {"model": {"e1": 1e9}}),
        ("model", {"model": '{"e1": '}),
        ("model", {"model": '{"e1": NaN}'}),
        ("model", {"model": "{" * 4000}),
        ("model", {"model": "\ud800"}),
        ("model", {"model": {"\ud800": 1.0}}),
        ("stop", {"stop": ["\ud800"]}),
        ("finlora_deadline_seconds", {"finlora_deadline_seconds": 0}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
    ]
    for field, change in cases:
        answer = post(ASK | change)
        assert answer.status_code == 400, (change, answer.text)
        error = answer.json()["error"]
        assert error["param"] == field, (change, error)
        assert error["type"] == "invalid_request_error"
        assert field in error["message"] or error["code"] == "context_length_exceeded", error


def test_messages_are_checked(post):
    for change in (
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
        {"messages": [{"role": "user", "content": "x" * 600}]},
    ):
        answer = post(CHAT | change, "chat/completions")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "messages"
    assert post(CHAT | {"tools": []}, "chat/completions").json()["error"]["param"] == "tools"
    assert post(CHAT | {"top_logprobs": 3}, "chat/completions").status_code == 400


def test_schemas_are_checked(post):
    for schema in (
        {"type": "nonsense"},
        {"$ref": "https://example.com/other.json"},
        {"type": "string", "pattern": "(" * 50},
        {"enum": ["x" * 100] * 1000},
    ):
        body = ASK | {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
        if len(json.dumps(body)) > 20_000:
            assert post(body).status_code == 413
            continue
        answer = post(body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "response_format"


def test_bodies_that_are_no_json_objects(post):
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe",
        b"[" * 19_000,
        b'{"a":' * 3_000,
        b'{"prompt": ' + b"9" * 5_000 + b"}",
    ):
        for path in ("completions", "chat/completions", "experts"):
            answer = post(body, path)
            assert answer.status_code == 400, (body[:20], answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_other_content_types_are_refused(serve, spell):
    url = serve(ScriptedEngine(lambda _: spell("x")))
    answer = httpx.post(
        f"{url}/v1/completions", content=json.dumps(ASK), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


def test_large_bodies_are_refused_whether_or_not_their_length_is_told(post, serve, spell):
    assert post(ASK | {"prompt": "x" * 30_000}).status_code == 413
    url = serve(ScriptedEngine(lambda _: spell("x")), body_limit=1000)
    answer = httpx.post(
        f"{url}/v1/completions",
        content=(b"x" * 100 for _ in range(100)),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert "1,000 bytes" in answer.json()["error"]["message"]


def test_other_paths_and_methods(post, serve, spell):
    assert post(ASK, "embeddings").status_code == 404
    url = serve(ScriptedEngine(lambda _: spell("x")))
    assert httpx.get(f"{url}/v1/completions").status_code == 405
    assert (
        httpx.get(f"{url}/v1/completions").json()["error"]["message"] == "/v1/completions does not take GET."
    )


def test_what_only_the_engine_knows_is_refused_by_name(serve, engine, registry):
    registry.quarantine(registry.resolve("e2"), "it is not finite")
    url = serve(engine, registry)
    for change, status, field, text in (
        ({"model": "e"}, 404, "model", "There is no model 'e'; near names are"),
        ({"model": {"e1": 1.0, "e99": 1.0}}, 404, "model", "There is no expert 'e99'"),
        ({"model": "../../etc/passwd"}, 404, "model", "There is no model '../../etc/passwd'"),
        ({"model": "e2"}, 409, "model", "e2@1 is in quarantine"),
        ({"prompt": [259]}, 400, "prompt", "259"),
        ({"prompt": [10**30]}, 400, "prompt", "1000"),
    ):
        answer = httpx.post(f"{url}/v1/completions", json=ASK | change, timeout=30)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, field), answer.text
        assert text in error["message"]


@pytest.fixture
def keyed(serve, spell, registry):
    """Asks a server with two keys."""
    keys = Keys(
        [
            Client(name="bank_a", key=KEY, requests_per_minute=2, manages_experts=True),
            Client(name="bank_b", key=OTHER_KEY),
        ]
    )
    engine = ScriptedEngine(lambda _: spell("x"))
    url = serve(engine, registry, keys=keys)

    def ask(key: str | None, method: str = "POST", path: str = "/v1/completions", body=ASK) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.request(method, url + path, json=body, headers=headers)

    return engine, ask


def test_without_a_key_of_the_server_there_is_only_page_and_health(keyed):
    engine, ask = keyed
    for key in (None, "wrong", KEY + "x", KEY.upper()):
        for method, path in (
            ("POST", "/v1/completions"),
            ("POST", "/v1/experts"),
            ("GET", "/v1/models"),
            ("GET", "/v1/engine"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
        ):
            answer = ask(key, method, path)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert ask(None, "GET", "/health").status_code == ask(None, "GET", "/").status_code == 200
    assert not engine.requests


def test_each_key_has_its_own_limit_and_tenant(keyed):
    engine, ask = keyed
    assert [ask(KEY).status_code for _ in range(3)] == [200, 200, 429]
    late = ask(KEY)
    assert 25 <= int(late.headers["retry-after"]) <= 31
    assert late.json()["error"]["code"] == "rate_limit_exceeded"
    assert ask(OTHER_KEY).status_code == 200
    assert [request.tenant for request in engine.requests] == ["bank_a", "bank_a", "bank_b"]


def test_only_some_keys_may_change_experts(keyed):
    _, ask = keyed
    assert ask(OTHER_KEY, "DELETE", "/v1/experts/e1").status_code == 403
    assert ask(OTHER_KEY, "POST", "/v1/experts", {"name": "x", "source": "x"}).status_code == 403
    assert ask(OTHER_KEY, "GET", "/v1/experts").status_code == 200
    assert ask(KEY, "DELETE", "/v1/experts/e1").status_code == 200
