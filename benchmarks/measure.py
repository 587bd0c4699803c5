"""Seconds and peak memory of a piece of work in this process. Knows nothing of what is measured."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_RESET_PEAK = "5"  # proc(5), clear_refs: reset the peak resident set size to its present value


@dataclass
class Cost:
    """What a piece of work cost; filled in when it ends.

    Attributes:
        seconds: Wall-clock time.
        peak_bytes: Largest device memory on CUDA, else largest resident memory of the process, all in all.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block; peaks of earlier work do not count where the system can reset them."""
    cost = Cost()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - start
        cost.peak_bytes = _peak_bytes()


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
