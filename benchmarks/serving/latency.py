"""What a load test says about a server: throughput, latencies, and S-LoRA's attainment and satisfaction.

Definitions are those of S-LoRA's benchmark (`run_exp.py`, `slora/utils/metric.py`), but latencies count from
the time at which the trace sends a request.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .load import LoadRun

OBJECTIVE_SECONDS = 6.0
"""Objective for the time to the first token."""
STRIP_SECONDS = 10.0
"""Cut off at both ends for the stripped throughput."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class LoadSummary:
    """Numbers of one run; seconds, and requests or tokens a second."""

    requests: int
    finished: int
    aborted: int
    """Dropped by admission before the first token."""
    refused: int
    """Not taken, since the queue was full."""
    failed: int
    wall_seconds: float
    cpu_seconds: float
    throughput: float
    """Finished requests over all of the time, that in which the queue drained included."""
    stripped_throughput: float | None
    """As S-LoRA computes it: without 10 s at both ends and the requests due in them; None for short runs."""
    tokens_per_second: float
    """New tokens of finished requests over all of the time."""
    requests_per_cpu_second: float
    """Finished requests over the processor time of the process."""
    latency: dict[str, float]
    """Mean and percentiles, from arrival to the last token, of finished requests."""
    first_token: dict[str, float]
    """Mean and percentiles, from arrival to the first token, of finished requests."""
    per_output_token: float
    """Mean of latency over new tokens."""
    attainment: float
    """Share of all requests whose first token came within 6 s; dropped ones count as not."""
    satisfaction: float
    """Mean of 1 - (t / 6)^2 for first tokens after t < 6 s, and 0 for all others."""
    latest_send: float
    """How late a request was sent at most; large values mean that the sender, not the engine, was slow."""

    def as_json(self) -> dict[str, object]:
        """All numbers."""
        return asdict(self)


def summarize(run: LoadRun, rate: float) -> LoadSummary:
    """Compute the numbers of a run.

    Args:
        run: What was measured.
        rate: Requests a second of its trace.
    """
    finished = [one for one in run.requests if one.reason in ("stop", "length")]
    first = [one.first_token - one.due for one in finished if one.first_token is not None]
    latency = [one.finished - one.due for one in finished if one.finished is not None]
    reasons = [one.reason for one in run.requests]
    aborted, refused = reasons.count("aborted"), reasons.count("refused")
    total = max(len(run.requests), 1)
    return LoadSummary(
        requests=len(run.requests),
        finished=len(finished),
        aborted=aborted,
        refused=refused,
        failed=len(run.requests) - len(finished) - aborted - refused,
        wall_seconds=run.wall_seconds,
        cpu_seconds=run.cpu_seconds,
        throughput=len(finished) / run.wall_seconds,
        stripped_throughput=stripped(len(finished), run.wall_seconds, rate),
        tokens_per_second=sum(one.new_tokens for one in finished) / run.wall_seconds,
        requests_per_cpu_second=len(finished) / max(run.cpu_seconds, 1e-9),
        latency=spread_of(latency),
        first_token=spread_of(first),
        per_output_token=_mean(
            [seconds / one.new_tokens for seconds, one in zip(latency, finished, strict=True)]
        ),
        attainment=sum(seconds < OBJECTIVE_SECONDS for seconds in first) / total,
        satisfaction=sum(map(satisfaction, first)) / total,
        latest_send=max((one.sent - one.due for one in run.requests), default=0.0),
    )


def stripped(finished: int, seconds: float, rate: float) -> float | None:
    """S-LoRA's throughput without the first and last 10 s; None if nothing would be left."""
    count = int(rate * STRIP_SECONDS)
    if seconds <= 2 * STRIP_SECONDS or finished <= 2 * count:
        return None
    return (finished - 2 * count) / (seconds - 2 * STRIP_SECONDS)


def satisfaction(seconds: float) -> float:
    """How content somebody is who waited so long for the first token, from 1 down to 0."""
    return 1 - (seconds / OBJECTIVE_SECONDS) ** 2 if seconds < OBJECTIVE_SECONDS else 0.0


def spread_of(seconds: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles; empty if there is nothing."""
    if not seconds:
        return {}
    points = np.percentile(seconds, PERCENTILES)
    return {"mean": _mean(seconds)} | {
        f"p{point}": float(value) for point, value in zip(PERCENTILES, points, strict=True)
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
