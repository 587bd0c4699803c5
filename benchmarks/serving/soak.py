"""Half an hour of use as it comes: answers, streams given up, clients killed, experts added and removed.

    python -m finlora.benchmarks.serving.soak --minutes 30 --out runs/soak

Passes if no answer has a status that was not asked for, memory does not grow, and in the end nothing runs,
waits, or holds a page of the key/value cache.
"""

import json
import random
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tyro

from ...experts.atomic_write import write_text
from ...experts.base_model import load_base
from ...experts.free_port import free_port
from ..results import json_lines
from .random_experts import make_random_experts
from .rude_clients import hang_up_mid_answer, hang_up_mid_request, killed_process
from .server_process import ServerProcess, serve_command

FIRST_EXPERTS = 20
"""Registered before the clients start, and never removed."""
MEBIBYTE = 2**20
SETTLE_SECONDS = 120.0
"""How long the server may take to finish what was asked last."""
WARM_UP_SHARE = 0.2
"""First part of the time, in which memory may still grow: pools, threads and caches fill."""
GROWTH_LIMIT = 0.05
"""Share of its size by which the process may grow from the end of the warm-up to the end."""


@dataclass
class SoakReport:
    """What happened."""

    minutes: float
    actions: dict[str, int]
    """How often each action ended how, such as `complete 200`."""
    unexpected: list[str]
    """Answers that nobody asked for; the first hundred."""
    memory: list[tuple[float, int]]
    """Seconds, and bytes of the server."""
    files: list[int]
    """Open files and connections of the server, with the same times."""
    first_bytes: float = 0.0
    """Median after the warm-up."""
    last_bytes: float = 0.0
    """Median at the end."""
    bytes_per_hour: float = 0.0
    """Slope of a line through all samples after the warm-up."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Counts of the engine after everything ended."""
    faults: list[str] = field(default_factory=list)
    """Why it did not pass; empty if it did."""

    def judge(self, alive: bool) -> None:
        """Find what is wrong."""
        times = np.array([second for second, _ in self.memory])
        sizes = np.array([size for _, size in self.memory], dtype=float)
        late = times >= WARM_UP_SHARE * times.max(initial=0.0)
        if late.sum() >= 4:
            part = max(int(late.sum()) // 5, 1)
            self.first_bytes = float(np.median(sizes[late][:part]))
            self.last_bytes = float(np.median(sizes[late][-part:]))
            self.bytes_per_hour = float(np.polyfit(times[late], sizes[late], 1)[0]) * 3600
        if self.unexpected:
            self.faults.append(f"{len(self.unexpected)} answers that nobody asked for")
        if not alive:
            self.faults.append("the server ended")
        if self.last_bytes > self.first_bytes * (1 + GROWTH_LIMIT):
            grown = (self.last_bytes - self.first_bytes) / MEBIBYTE
            self.faults.append(f"memory grew by {grown:.0f} MiB after the warm-up")
        for name in ("queued", "running", "cache_pages"):
            if self.engine.get(name) != 0:
                self.faults.append(f"{name} is {self.engine.get(name)} at the end")

    def markdown(self) -> str:
        """A summary."""
        verdict = "Passed." if not self.faults else f"Not passed: {'; '.join(self.faults)}."
        rows = "\n".join(f"| {name} | {count:,} |" for name, count in sorted(self.actions.items()))
        engine = {key: value for key, value in self.engine.items() if key != "resident"}
        return (
            f"# Soak of {self.minutes:g} minutes\n\n{verdict}\n\n"
            f"Memory of the server: {self.first_bytes / MEBIBYTE:.0f} MiB after the warm-up, "
            f"{self.last_bytes / MEBIBYTE:.0f} MiB at the end; a line through all samples in between rises "
            f"by {self.bytes_per_hour / MEBIBYTE:.1f} MiB an hour. Open files: "
            f"{self.files[0] if self.files else 0} at first, {self.files[-1] if self.files else 0} at the "
            "end.\n\n"
            f"| Action and how it ended | Times |\n| :-- | --: |\n{rows}\n\n"
            f"Engine after the end: `{json.dumps(engine)}`\n"
        )


class Client(threading.Thread):
    """One client that does something at random, again and again."""

    def __init__(self, server: ServerProcess, names: "Names", until: float, seed: int, pause: float):
        """Act until the clock (`time.monotonic`) shows `until`, with pauses of `pause` seconds on average."""
        super().__init__(daemon=True)
        self.server, self.names, self.until, self.pause = server, names, until, pause
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.http = httpx.Client(base_url=server.url, timeout=300.0)

    ACTIONS = (
        ("complete", 8),
        ("stream", 5),
        ("give_up", 5),
        ("kill_request", 2),
        ("kill_answer", 3),
        ("kill_process", 1),
        ("add", 3),
        ("replace", 2),
        ("remove", 3),
        ("unknown", 1),
        ("bad", 1),
    )

    def run(self) -> None:
        """Act."""
        names, weights = zip(*self.ACTIONS, strict=True)
        while time.monotonic() < self.until:
            name = self.random.choices(names, weights)[0]
            try:
                getattr(self, f"_{name}")(name)
            except httpx.HTTPError as error:
                self._note(name, f"{type(error).__name__} {error}", expected=False)
            time.sleep(self.random.expovariate(1 / self.pause))

    def _note(self, action: str, outcome: object, *, expected: bool) -> None:
        self.counts[f"{action} {outcome}"] += 1
        if not expected:
            self.unexpected.append(f"{action}: {outcome}")

    def _body(self, **changes: Any) -> dict[str, Any]:
        return {
            "model": self.names.any_model(self.random),
            "prompt": "Hello " * self.random.randint(1, 60),
            "max_tokens": self.random.randint(1, 60),
            "temperature": self.random.choice([0.0, 1.0]),
            "ignore_eos": True,
        } | changes

    def _answered(self, action: str, body: dict[str, Any], status: int) -> None:
        """An answer is due; or 404, if an expert of the request was removed meanwhile."""
        gone = status == 404 and self.names.may_be_gone(body["model"])
        self._note(action, status, expected=status == 200 or gone)

    def _complete(self, action: str) -> None:
        body = self._body()
        self._answered(action, body, self.http.post("/v1/completions", json=body).status_code)

    def _stream(self, action: str) -> None:
        body = self._body(stream=True)
        with self.http.stream("POST", "/v1/completions", json=body) as answer:
            last = ""
            for line in answer.iter_lines():
                last = line or last
            self._answered(action, body, answer.status_code)
            if answer.status_code == 200 and last != "data: [DONE]":
                self._note(action, f"ended with {last[:80]}", expected=False)

    def _give_up(self, action: str) -> None:
        body = self._body(stream=True, max_tokens=400)
        with self.http.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code == 200:
                for _, _ in zip(answer.iter_lines(), range(self.random.randint(0, 30)), strict=False):
                    pass
            self._answered(action, body, answer.status_code)

    def _kill_request(self, action: str) -> None:
        hang_up_mid_request(self.server.port, self._body(), self.random.random())
        self._note(action, "done", expected=True)

    def _kill_answer(self, action: str) -> None:
        body = self._body(stream=self.random.random() < 0.7, max_tokens=400)
        hang_up_mid_answer(self.server.port, body, self.random.uniform(0.0, 1.0))
        self._note(action, "done", expected=True)

    def _kill_process(self, action: str) -> None:
        bodies = [self._body(stream=True, max_tokens=400) for _ in range(3)]
        killed_process(self.server.port, bodies, self.random.uniform(0.1, 1.0))
        self._note(action, "done", expected=True)

    def _add(self, action: str) -> None:
        name = self.names.new(self.random)
        if name is None:
            return
        body = {"name": name, "source": self.names.source(self.random)}
        status = self.http.post("/v1/experts", json=body).status_code
        self.names.settled(name, there=status == 201)
        self._note(action, status, expected=status == 201)

    def _replace(self, action: str) -> None:
        name = self.names.take_existing(self.random)
        if name is None:
            return
        body = {"name": name, "source": self.names.source(self.random), "replace": True}
        status = self.http.post("/v1/experts", json=body).status_code
        self.names.settled(name, there=True)
        self._note(action, status, expected=status == 201)

    def _remove(self, action: str) -> None:
        name = self.names.take_existing(self.random)
        if name is None:
            return
        status = self.http.delete(f"/v1/experts/{name}").status_code
        self.names.settled(name, there=False)
        self._note(action, status, expected=status == 200)

    def _unknown(self, action: str) -> None:
        status = self.http.post("/v1/completions", json=self._body(model="nobody-here")).status_code
        self._note(action, status, expected=status == 404)

    def _bad(self, action: str) -> None:
        change = self.random.choice([{"temperature": -1}, {"max_tokens": 10**9}, {"n": 0}, {"top_p": "x"}])
        status = self.http.post("/v1/completions", json=self._body(**change)).status_code
        self._note(action, status, expected=status == 400)


class Names:
    """Which experts there are, as far as the clients know; each name is changed by one client at a time."""

    def __init__(self, fixed: list[str], sources: list[str], most: int = 40):
        """Let clients add up to `most` experts from `sources`, beside the fixed ones."""
        self.fixed, self._sources, self._most = fixed, sources, most
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._changing: set[str] = set()
        self._count = 0

    def any_model(self, generator: random.Random) -> Any:
        """The base, an expert, or a set of experts with weights."""
        with self._lock:
            names = [*self.fixed, *sorted(self._there)]
        kind = generator.random()
        if kind < 0.1:
            return "base"
        if kind < 0.7:
            return generator.choice(names)
        return {name: round(generator.uniform(0.1, 1.0), 2) for name in generator.sample(names, 3)}

    def may_be_gone(self, model: Any) -> bool:
        """Whether a model has an expert that clients may remove."""
        names = [model] if isinstance(model, str) else list(model)
        return any(name not in self.fixed and name != "base" for name in names)

    def source(self, generator: random.Random) -> str:
        """A folder to add from."""
        return generator.choice(self._sources)

    def new(self, generator: random.Random) -> str | None:
        """A free name, sometimes one that was used before; None if there are enough experts."""
        with self._lock:
            if len(self._there) + len(self._changing) >= self._most:
                return None
            again = generator.randint(0, self._count)
            name = f"guest-{again}"
            if name in self._there or name in self._changing:
                self._count += 1
                name = f"guest-{self._count}"
            self._changing.add(name)
            return name

    def take_existing(self, generator: random.Random) -> str | None:
        """An added expert that nobody else changes; None if there is none."""
        with self._lock:
            free = sorted(self._there - self._changing)
            if not free:
                return None
            name = generator.choice(free)
            self._there.discard(name)
            self._changing.add(name)
            return name

    def settled(self, name: str, *, there: bool) -> None:
        """A change of a name has ended."""
        with self._lock:
            self._changing.discard(name)
            if there:
                self._there.add(name)


def soak(server: ServerProcess, names: Names, *, minutes: float, clients: int, pause: float) -> SoakReport:
    """Let clients act on a running server, and judge it."""
    start = time.monotonic()
    until = start + 60 * minutes
    threads = [Client(server, names, until, seed, pause) for seed in range(clients)]
    for thread in threads:
        thread.start()
    memory, files = [], []
    while any(thread.is_alive() for thread in threads) and server.alive:
        memory.append((time.monotonic() - start, server.memory()))
        files.append(server.open_files())
        time.sleep(min(2.0, max(minutes, 0.1)))
        if time.monotonic() > until + SETTLE_SECONDS:
            break
    counts: Counter[str] = Counter()
    for thread in threads:
        counts.update(thread.counts)
    unexpected = [text for thread in threads for text in thread.unexpected]
    unexpected += [f"client {i} hangs" for i, thread in enumerate(threads) if thread.is_alive()]
    report = SoakReport(minutes, dict(counts), unexpected[:100], memory, files)
    if server.alive:
        report.engine = settle(server)
    report.judge(server.alive)
    return report


def settle(server: ServerProcess) -> dict[str, Any]:
    """Wait until nothing runs any more, and return what the engine holds then."""
    until = time.monotonic() + SETTLE_SECONDS
    state = server.engine()
    while state["queued"] + state["running"] + state["cache_pages"] > 0 and time.monotonic() < until:
        time.sleep(0.5)
        state = server.engine()
    return state


def main(out: Path, minutes: float = 30.0, clients: int = 6, pause: float = 0.3) -> None:
    """Soak a server on the embedded base with random experts.

    Args:
        out: Folder for files and the report.
        minutes: How long.
        clients: Threads that act.
        pause: Seconds between two actions of a client, on average.
    """
    out.mkdir(parents=True, exist_ok=True)
    base, experts = load_base("embedded", "none"), out / "source"
    names = list(make_random_experts(base, experts, FIRST_EXPERTS, ranks=(4, 8, 20)))
    port = free_port()
    with ServerProcess(serve_command(out / "registry", experts, port), port, out / "server.log") as server:
        report = soak(server, Names(names, names), minutes=minutes, clients=clients, pause=pause)
    write_text(out / "soak.jsonl", json_lines([asdict(report)]))
    write_text(out / "soak.md", report.markdown())
    print(report.markdown())


if __name__ == "__main__":
    tyro.cli(main)
