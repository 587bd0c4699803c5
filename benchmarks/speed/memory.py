"""Peak memory of a generation and of a training step, each in a fresh process."""

from __future__ import annotations

import ctypes
import gc
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_context

import psutil
import torch

from ..measure import measured
from .contenders import CONTENDERS
from .plan import Bench, Record, Unit, left_out
from .settings import SpeedPlan
from .timing import generate
from .training import TRAINING, training_batch

WARM_UP_TOKENS = 4
"""Prompt tokens of the generation before the one that is measured."""


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit a contender that generates, then one a method that trains."""
    generating = [
        Unit(f"generation {name}", partial(measure, work="generation", name=name)) for name in CONTENDERS
    ]
    training = [Unit(f"training {name}", partial(measure, work="training", name=name)) for name in TRAINING]
    return [*generating, *training]


def measure(bench: Bench, *, work: str, name: str) -> list[Record]:
    """Measure one contender or method, in as many processes as the plan says."""
    prepare = {"generation": prepare_generation, "training": prepare_training}[work]
    about = {"work": work, "contender": name, "quantization": "none", **_sizes(bench.plan, work)}
    task = partial(peak_above_loaded, prepare, bench, name, torch.get_num_threads())
    repeats = min(bench.repeats, bench.plan.memory_repeats)
    try:
        peaks = [in_fresh_process(task) for _ in range(repeats)]
    except BrokenProcessPool:
        return [left_out("its process died, probably for lack of memory", **about)]
    return [{"quantity": "memory", **about, "median_bytes": statistics.median(peaks), "bytes": peaks}]


def in_fresh_process(task: Callable[[], int]) -> int:
    """Run a task in a process that a server forks: libraries are imported once, nothing else is shared."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(task).result()


def _sizes(plan: SpeedPlan, work: str) -> dict[str, int]:
    if work == "training":
        return {
            "rows": plan.training_rows,
            "tokens": plan.training_tokens,
            "learnt_tokens": plan.training_answer,
        }
    return {"batch": 1, "prompt_tokens": plan.memory_prompt, "new_tokens": plan.memory_new}


Work = tuple[Callable[[], object], Callable[[], object]]
"""What brings all weights into memory, and what is measured."""


def prepare_generation(bench: Bench, name: str) -> Work:
    """Load a contender."""
    workshop, plan = bench.workshop, bench.plan
    model = CONTENDERS[name].make(workshop, workshop.base())
    short, prompt = workshop.prompt(1, WARM_UP_TOKENS), workshop.prompt(1, plan.memory_prompt)
    return partial(generate, model, short, 2), partial(generate, model, prompt, plan.memory_new)


def prepare_training(bench: Bench, name: str) -> Work:
    """Load something that trains; its optimizer's state counts as used by the step."""
    training = TRAINING[name].prepare(bench.workshop, bench.workshop.base(), training_batch(bench))
    return training.touch, training.step


def peak_above_loaded(prepare: Callable[[Bench, str], Work], bench: Bench, name: str, threads: int) -> int:
    """Run in a fresh process; return by how many bytes its memory rose above what it held when loaded."""
    torch.set_num_threads(threads)
    touch, work = prepare(bench, name)
    touch()
    gc.collect()
    with suppress(OSError, AttributeError):
        # What loading freed would otherwise still count as held.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    held = torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
    with measured() as cost:
        work()
    return cost.peak_bytes - held
