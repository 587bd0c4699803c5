"""Two replicas on Ray Serve answer as one server, and each expert stays with one of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from finlora.experts.free_port import free_port

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None or not os.environ.get("FINLORA_RAY_SERVE_TESTS"),
    reason="starts Ray Serve with two servers, which takes minutes: pip install ray[serve], and set "
    "FINLORA_RAY_SERVE_TESTS=1",
)

ASK = {
    "prompt": "What is the value of Goodwill? Answer:",
    "max_tokens": 8,
    "temperature": 0,
    "ignore_eos": True,
}
BACK_SECONDS = 120.0
START_SECONDS = 900.0
INTERRUPTED = 130


@pytest.fixture(scope="module")
def url(llama3_folder, folders, mixture_folder, tmp_path_factory) -> Iterator[str]:
    """`finlora serve --ray 2`, on a Ray of its own."""
    place = tmp_path_factory.mktemp("replicas")
    port = free_port()
    command = [sys.executable, "-m", "finlora.moe.cli", "serve", str(mixture_folder), "--experts"]
    command += [*map(str, folders.values()), "--base", str(llama3_folder), "--quantization", "none"]
    command += ["--registry", str(place / "registry"), "--trust-base-name", "--memory-pages", "256"]
    command += ["--ray", "2", "--port", str(port)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_answer(f"http://127.0.0.1:{port}", process, place / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=BACK_SECONDS) == INTERRUPTED


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(f"{url}/health", timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)


def ask(url: str, model: object, **changes: object) -> httpx.Response:
    answer = httpx.post(f"{url}/v1/completions", json=ASK | {"model": model} | changes, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def loads_of_replicas(url: str) -> dict[str, int]:
    """Experts that each replica has brought to its device; waits for both, since one may start later."""
    loads: dict[str, int] = {}
    deadline = time.monotonic() + BACK_SECONDS
    while len(loads) < 2:
        answer = httpx.get(f"{url}/v1/engine", timeout=120)
        loads[answer.headers["x-finlora-replica"]] = answer.json()["loads"]
        assert time.monotonic() < deadline, loads
    return loads


def test_requests_go_where_their_experts_are(url, shared_url):
    loads_of_replicas(url)
    models = ["e0", "e1", "mix", "base", {"e0": 0.5, "e2": 0.5}]
    for model in models:
        expected = ask(shared_url, model).json()["choices"]
        assert ask(url, model).json()["choices"] == expected
    before = loads_of_replicas(url)
    for _ in range(8):
        for model in models:
            ask(url, model)
    assert loads_of_replicas(url) == before


def test_streams_and_refusals_pass_through(url, shared_url):
    texts = []
    with httpx.stream(
        "POST", f"{url}/v1/completions", json=ASK | {"model": "e1", "stream": True}, timeout=120
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        texts = list(answer.iter_lines())
    assert texts[-2:] == ["data: [DONE]", ""]
    refused = httpx.post(f"{url}/v1/completions", json=ASK | {"model": "e9"}, timeout=120)
    assert refused.status_code == 404
    assert refused.json() == httpx.post(f"{shared_url}/v1/completions", json=ASK | {"model": "e9"}).json()
    assert httpx.post(f"{url}/v1/completions", content=b"[", timeout=120).status_code == 400


def test_a_client_that_hangs_up_frees_its_replica(url):
    body = ASK | {"model": "e2", "stream": True, "max_tokens": 400}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=120) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + BACK_SECONDS
    free = 0
    # Any replica may answer, so many times in a row none of them may be at work.
    while free < 10:
        state = httpx.get(f"{url}/v1/engine", timeout=120).json()
        free = free + 1 if state["running"] == 0 else 0
        assert time.monotonic() < deadline
    assert state["generated_tokens"] < 1000


def test_models_are_read_from_a_body():
    named_models = pytest.importorskip("finlora.moe.serving.replicas").named_models
    assert named_models(b'{"model": "e1"}') == {"e1"}
    assert named_models(b'{"model": "base"}') == frozenset()
    assert named_models(b'{"model": {"e1": 1, "e2": 0.5}}') == {"e1", "e2"}
    assert named_models(b'{"model": "{\\"e1\\": 1}"}') == {"e1"}
    for body in (b"", b"[", b"{}", b"[1]", b'{"model": 5}', b'{"model": "{"}', b"[" * 100_000):
        assert named_models(body) == frozenset()
