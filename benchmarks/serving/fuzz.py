"""Ten thousand wrong and odd requests: hand-made, and made by schemathesis of the OpenAPI document.

    python -m finlora.benchmarks.serving.fuzz --requests 10000 --out runs/fuzz

Passes if no answer has a status of 500 or more, each comes within a minute, and the server answers as before
afterwards. Needs schemathesis.
"""

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import tyro

from ...experts.atomic_write import write_text
from ...experts.base_model import load_base
from ...experts.errors import FinLoraError
from ...experts.free_port import free_port
from ..results import json_lines
from .odd_requests import OddRequest, broken_connections, odd_requests
from .random_experts import make_random_experts
from .rude_clients import send_bytes
from .server_process import ServerProcess, serve_command
from .soak import settle

ANSWER_SECONDS = 60.0
"""An answer that takes longer counts as none."""
HAND_MADE = 0.7
"""Share of hand-made requests."""
DEADLINE_SECONDS = 2.0
"""Set in schemathesis' requests for answers, which may ask for tens of thousands of tokens and get them."""
CLIENTS = 8
"""Requests at once."""
CASES_AT_ONCE = 400
"""Requests that are made before they are sent."""
SERVER_ERROR = 500


@dataclass
class FuzzReport:
    """What happened."""

    seed: int
    statuses: dict[str, int] = field(default_factory=dict)
    """How many answers of each kind of request had which status."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    """Requests that were answered with 500 or more, or not at all."""
    slowest_seconds: float = 0.0
    engine: dict[str, Any] = field(default_factory=dict)
    """Counts of the engine after everything ended."""
    same_answer: bool = False
    """Whether a plain request is answered after all this as it was before."""

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.statuses.values())

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        held = [self.engine.get(name) for name in ("queued", "running", "cache_pages")]
        return not self.faults and self.same_answer and held == [0, 0, 0]

    def markdown(self) -> str:
        """A summary."""
        rows = "\n".join(f"| {name} | {count:,} |" for name, count in sorted(self.statuses.items()))
        engine = {key: value for key, value in self.engine.items() if key != "resident"}
        faults = "\n".join(f"- `{json.dumps(one)[:600]}`" for one in self.faults[:20])
        return (
            f"# {self.requests:,} fuzzed requests\n\n{'Passed' if self.passed else 'Not passed'}: "
            f"{len(self.faults)} answers of 500 or more, or missing; the slowest took "
            f"{self.slowest_seconds:.1f} s; a plain request is answered "
            f"{'as' if self.same_answer else 'not as'} before.\n\n{faults}\n\n"
            f"| Kind of request and status | Times |\n| :-- | --: |\n{rows}\n\n"
            f"Engine after the end: `{json.dumps(engine)}`\n"
        )


class Fuzzer:
    """Sends requests and notes what comes back."""

    def __init__(self, server: ServerProcess, seed: int):
        """Fuzz a running server."""
        self.server, self.report = server, FuzzReport(seed)
        self.http = httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, kind: str, status: int | str, seconds: float, about: Any) -> None:
        """Count an answer; safe in any thread."""
        with self._lock:
            self.counts[f"{kind} {status}"] += 1
            self.report.slowest_seconds = max(self.report.slowest_seconds, seconds)
            if not isinstance(status, int) or status >= SERVER_ERROR:
                self.report.faults.append({"kind": kind, "status": status, "request": about})

    def send(self, odd: OddRequest) -> None:
        """Send a hand-made request."""
        start = time.monotonic()
        try:
            answer = self.http.request(odd.method, odd.path, content=odd.body, headers=odd.headers)
            status: int | str = answer.status_code
        except httpx.LocalProtocolError:
            # What no client can send does not count.
            return
        except httpx.HTTPError as error:
            status = type(error).__name__
        self.note(f"hand-made {odd.kind}", status, time.monotonic() - start, odd.shown())

    def send_case(self, kind: str, case: Any) -> None:
        """Send a request that schemathesis made."""
        if isinstance(case.body, dict) and "completions" in case.path:
            case.body.setdefault("finlora_deadline_seconds", DEADLINE_SECONDS)
        start = time.monotonic()
        try:
            status: int | str = case.call(timeout=ANSWER_SECONDS).status_code
        except (ValueError, UnicodeError):
            # What no client can send does not count.
            return
        except Exception as error:
            status = type(error).__name__
        about = {"method": case.method, "path": case.formatted_path, "body": repr(case.body)[:2000]}
        self.note(f"schemathesis {kind}", status, time.monotonic() - start, about)

    def broken(self) -> None:
        """Send bytes that are no HTTP; any answer below 500 or a closed connection is right."""
        for kind, data in broken_connections():
            start = time.monotonic()
            status = send_bytes(self.server.port, data, ANSWER_SECONDS)
            self.note(f"bytes {kind}", status if status is not None else 0, time.monotonic() - start, kind)


def generated_cases(url: str, seed: int, batch: int = 40) -> Iterator[tuple[str, Any]]:
    """Yield schemathesis' requests for all operations in turn, without end: kind, and case.

    Raises:
        FinLoraError: If schemathesis is not installed.
    """
    try:
        import schemathesis
        from hypothesis.errors import Unsatisfiable
        from schemathesis.core.result import Ok
    except ImportError as error:
        raise FinLoraError("Fuzzing needs schemathesis: pip install schemathesis.") from error
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    for number in itertools.count(seed):
        for operation in operations:
            for mode in schemathesis.GenerationMode:
                # A route without parameters cannot be asked wrongly.
                with suppress(Unsatisfiable):
                    cases = _draw(operation.as_strategy(generation_mode=mode), number, batch)
                    yield from ((mode.value, case) for case in cases)


def _draw(strategy: Any, seed: int, count: int) -> list[Any]:
    """Draw cases as a hypothesis test would, with its own way to vary them."""
    import hypothesis

    cases: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    @hypothesis.given(strategy)
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases


def fuzz(
    server: ServerProcess,
    *,
    requests: int,
    seed: int,
    progress: Callable[[FuzzReport], None] = lambda _: None,
) -> FuzzReport:
    """Fuzz a running server.

    Args:
        server: Is asked.
        requests: How many in all.
        seed: Of everything random.
        progress: Told what was found so far, now and then.
    """
    fuzzer = Fuzzer(server, seed)
    before = plain_answer(server)
    generator = random.Random(seed)
    report = fuzzer.report
    fuzzer.broken()
    hand_made = odd_requests(generator, int(requests * HAND_MADE))
    cases = generated_cases(server.url, seed)
    with ThreadPoolExecutor(CLIENTS) as threads:
        while some := list(itertools.islice(hand_made, CASES_AT_ONCE)):
            list(threads.map(fuzzer.send, some))
            report.statuses = dict(fuzzer.counts)
            progress(report)
        while (missing := requests - report.requests) > 0:
            made = list(itertools.islice(cases, min(missing, CASES_AT_ONCE)))
            list(threads.map(fuzzer.send_case, *zip(*made, strict=True)))
            report.statuses = dict(fuzzer.counts)
            progress(report)
    report.engine = settle(server)
    report.same_answer = plain_answer(server) == before
    return report


def plain_answer(server: ServerProcess) -> str:
    """Text that the base answers to a plain question."""
    body = {"model": "base", "prompt": "What is revenue?", "max_tokens": 24, "temperature": 0}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=ANSWER_SECONDS)
    answer.raise_for_status()
    return answer.json()["choices"][0]["text"]


def main(out: Path, requests: int = 10_000, seed: int = 0) -> None:
    """Fuzz a server on the embedded base with a few random experts.

    Args:
        out: Folder for files and the report.
        requests: How many.
        seed: Of everything random.
    """
    out.mkdir(parents=True, exist_ok=True)
    experts = out / "source"
    make_random_experts(load_base("embedded", "none"), experts, 4, ranks=(4, 8))
    port = free_port()
    with ServerProcess(serve_command(out / "registry", experts, port), port, out / "server.log") as server:

        def write(found: FuzzReport) -> None:
            write_text(out / "fuzz.jsonl", json_lines([asdict(found)]))
            print(f"{found.requests:,} requests, {len(found.faults)} faults", flush=True)

        report = fuzz(server, requests=requests, seed=seed, progress=write)
    write_text(out / "fuzz.jsonl", json_lines([asdict(report)]))
    write_text(out / "fuzz.md", report.markdown())
    print(report.markdown())


if __name__ == "__main__":
    tyro.cli(main)
