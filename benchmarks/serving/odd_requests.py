"""Requests that nobody should send, made by hand: with wrong fields, wrong bodies, wrong bytes."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

EXPERTS = ("expert-00000", "expert-00001", "expert-00002")
"""Experts that the server has."""
COMPLETIONS, CHAT, EXPERT_ROUTE = "/v1/completions", "/v1/chat/completions", "/v1/experts"

NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**63) - 1,
        10**30,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        " ",
        "\x00",
        "é" * 50,
        "\ud800",
        "💥" * 20,
        "../../etc/passwd",
        "'; DROP TABLE experts; --",
        "%s%n",
        "{",
        "[]",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        ["a", 1],
        {"a": {}},
        [0] * 3000,
        "x" * 70_000,
        [-1],
        [10**9],
        ["", ""],
        [[1], ["a"]],
    ),
    *({"expert-00000": 1e9}, {"expert-00000": float("nan")}, {"nobody": 0.5}, {"": 1.0}, {"base": 1.0}),
    *(
        {f"n{i}": 0.1 for i in range(100)},
        {"expert-00000": "1"},
        '{"expert-00000": 0.5}',
        '{"expert-00000": ',
    ),
)
"""Values that any field may get."""
FIELDS = (
    *(
        "model",
        "prompt",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
    ),
    *(
        "seed",
        "stop",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "echo",
        "best_of",
        "suffix",
        "user",
    ),
    *("response_format", "tools", "logit_bias", "ignore_eos", "finlora_routing", "finlora_deadline_seconds"),
    *("frequency_penalty", "presence_penalty", "__class__", "a" * 300),
)
EXPERT_FIELDS = ("name", "kind", "source", "adapter_config", "adapter_model", "expert", "replace", "more")
NAMES = (
    *(
        "..",
        "../x",
        "..%2f..%2fetc",
        "%2e%2e%2fregistry",
        "a/b",
        "a\\b",
        ".hidden",
        "base",
        "x" * 500,
        "%00",
        "é",
    ),
    *("expert-00000/../../x", "nul", "con", "-rf", "*", "?", "#", " ", "%", "expert-99999", "‮abc"),
)
SCHEMAS: tuple[Any, ...] = (
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"$ref": "#/nowhere"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "http://127.0.0.1:1/x"},
    {"type": "string", "pattern": "(a+)+$"},
    {"type": "string", "pattern": "("},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    {"enum": []},
    {"type": "no such type"},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"anyOf": [{"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(200)}}] * 20},
    False,
    True,
    [],
    "object",
)


@dataclass(frozen=True)
class OddRequest:
    """One request."""

    kind: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})

    def shown(self) -> dict[str, Any]:
        """It as a report shows it."""
        return {
            "method": self.method,
            "path": self.path,
            "body": repr(self.body[:1000]),
            "headers": self.headers,
        }


def odd_requests(generator: random.Random, count: int) -> Iterator[OddRequest]:
    """Yield so many, a few of which are right after all."""
    for _ in range(count):
        (make,) = generator.choices(list(MAKERS), list(MAKERS.values()))
        yield make(generator)


def wrong_fields(generator: random.Random) -> OddRequest:
    """A right request with one to three fields that may be wrong."""
    path, body = _right(generator)
    for _ in range(generator.randint(1, 3)):
        body[generator.choice(FIELDS)] = generator.choice(NASTY)
    return OddRequest("field", "POST", path, _json(body))


def missing_fields(generator: random.Random) -> OddRequest:
    """A right request that lacks something."""
    path, body = _right(generator)
    for name in generator.sample(list(body), generator.randint(1, len(body))):
        del body[name]
    return OddRequest("missing", "POST", path, _json(body))


def wrong_json(generator: random.Random) -> OddRequest:
    """A body that is no JSON object."""
    path, body = _right(generator)
    right = _json(body)
    cut = generator.randrange(len(right))
    bodies = (
        *(
            b"",
            b"null",
            b"[]",
            b'"text"',
            b"1",
            b"{",
            b"}",
            b"\xff\xfe\x00",
            b"{}" * 2,
            right[:cut],
            right + b"x",
        ),
        *(
            right[:cut] + bytes([generator.randrange(256)]) + right[cut + 1 :],
            b"[" * 100_000,
            b'{"a":' * 5000,
        ),
        *(b'{"prompt": "a", "prompt": 1}', b'{"prompt": 1e99999}', b"\xef\xbb\xbf" + right, b" " * 2_000_000),
    )
    kind = generator.choice(
        ["application/json", "text/plain", "application/xml", "", "application/json; charset=x"]
    )
    return OddRequest("json", "POST", path, generator.choice(bodies), {"content-type": kind})


def wrong_schema(generator: random.Random) -> OddRequest:
    """A grammar that cannot be followed, or only at great cost."""
    path, body = _right(generator)
    schema = generator.choice(SCHEMAS)
    if generator.random() < 0.2:
        for _ in range(generator.randint(10, 400)):
            schema = {"type": "array", "items": schema}
    body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body["temperature"] = 0
    return OddRequest("schema", "POST", path, _json(body))


def wrong_expert(generator: random.Random) -> OddRequest:
    """An expert that must not be added."""
    body: dict[str, Any] = {
        "name": generator.choice([*NAMES, "new"]),
        "source": generator.choice([*NAMES, *EXPERTS]),
    }
    if generator.random() < 0.5:
        body.pop("source")
        body["adapter_config"] = generator.choice(
            [*NASTY, {"peft_type": "LORA", "r": 4}, {"peft_type": "IA3"}]
        )
        body["adapter_model"] = generator.choice(["", "AAAA", "A", "//////////8=", "!", "gASVAAAA" * 50, 7])
    for _ in range(generator.randint(0, 2)):
        body[generator.choice(EXPERT_FIELDS)] = generator.choice(NASTY)
    if body.get("name") in EXPERTS:
        body["name"] = "new"
    return OddRequest("expert", "POST", EXPERT_ROUTE, _json(body))


def wrong_name(generator: random.Random) -> OddRequest:
    """A path with a name that leads elsewhere."""
    method = generator.choice(["DELETE", "GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"])
    root = generator.choice([EXPERT_ROUTE, "/v1/models", "/v1", "", "/static", "/metrics"])
    name = "".join(_quoted(character) for character in generator.choice(NAMES))
    return OddRequest("path", method, f"{root}/{name}")


def wrong_headers(generator: random.Random) -> OddRequest:
    """A right request with headers that make no sense."""
    path, body = _right(generator)
    headers = {"content-type": "application/json"} | generator.choice(
        [
            {"authorization": "Bearer " + "x" * 5000},
            {"authorization": "Basic %%%"},
            {"accept": "application/x-nothing"},
            {"accept-encoding": "nothing"},
            {"content-encoding": "gzip"},
            {"transfer-encoding": "nothing"},
            {"expect": "200-nothing"},
            {"x-forwarded-for": "../../"},
            {"content-type": "multipart/form-data"},
            {"range": "bytes=5-1"},
        ]
    )
    return OddRequest(
        "headers", generator.choice(["POST", "POST", "GET", "PUT", "DELETE"]), path, _json(body), headers
    )


def right(generator: random.Random) -> OddRequest:
    """A right request: between wrong ones it has to be answered too."""
    path, body = _right(generator)
    return OddRequest("right", "POST", path, _json(body))


MAKERS: dict[Callable[[random.Random], OddRequest], int] = {
    wrong_fields: 10,
    missing_fields: 2,
    wrong_json: 4,
    wrong_schema: 2,
    wrong_expert: 4,
    wrong_name: 3,
    wrong_headers: 2,
    right: 1,
}
"""How often each is made."""


def broken_connections() -> Iterator[tuple[str, bytes]]:
    """Bytes that are no HTTP request, or half of one: kind, and bytes."""
    yield "empty", b""
    yield "noise", random.Random(0).randbytes(4096)
    yield "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
    yield "no version", b"GET /health\r\n\r\n"
    yield "bad method", b"\x00GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "long path", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "many headers", b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n"
    yield "negative length", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"
    yield (
        "two lengths",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    )
    yield (
        "huge length",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{}",
    )
    yield (
        "bad chunk",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    )
    yield "half a head", b"POST /v1/completions HTTP/1.1\r\nHo"
    yield "half a body", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"


def _right(generator: random.Random) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "model": generator.choice(["base", *EXPERTS, {EXPERTS[0]: 0.5, EXPERTS[1]: 0.5}]),
        "max_tokens": generator.randint(1, 6),
    }
    if generator.random() < 0.3:
        body["stream"] = True
    if generator.random() < 0.5:
        return COMPLETIONS, body | {"prompt": "What is revenue?"}
    return CHAT, body | {"messages": [{"role": "user", "content": "What is revenue?"}]}


def _json(body: Any) -> bytes:
    return json.dumps(body).encode("ascii")


def _quoted(character: str) -> str:
    if character.isascii() and character.isprintable() and character not in " ?#":
        return character
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8"))
