"""The cross-task benchmark: trains all that is compared, asks every method every task, and reports.

Start reading at `benchmark`. A run lives in one folder and goes on from there after any interruption.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock
import psutil
import torch
from tqdm.auto import tqdm

from ..experts.atomic_write import write_json
from ..experts.base_model import EMBEDDED_BASE, QUANTIZATIONS, load_base, load_config
from ..experts.errors import FinLoraError
from ..experts.provenance import examples_sha256
from ..experts.tasks import Example, get_task, write_examples
from ..experts.tasks.sampling import sample_groups
from ..experts.tasks.suites import Suite, get_suite
from .budgets import BUDGETS, Budget, with_everything, with_further, with_single_passes
from .cells import read_cells
from .comparison import Comparison
from .costs import compute_costs, read_job_costs
from .foreign_text import foreign_results
from .given_experts import hash_given, install_given
from .jobs import plan_jobs, plan_questions, readers_of_foreign_text, training_jobs
from .layout import SPLITS, RunLayout
from .methods.merges import LORAHUB
from .pool import Finished, Job, run_jobs
from .process_crew import ProcessCrew
from .ray_crew import LOCAL, RayCrew
from .report import build_report
from .results import IN_DISTRIBUTION, Result, write_results, write_table
from .run_config import RunConfig, claim
from .scoring import compute_results
from .workshop import Workshop

RESAMPLES = 10_000
BYTES_FOR_A_WORKER = 2 * 2**30


def benchmark(
    suite: str,
    *,
    name: str | None = None,
    base: str = EMBEDDED_BASE,
    quantization: str = "nf4",
    tasks: Sequence[str] | None = None,
    router_seeds: Sequence[int] = (0, 1, 2),
    seed: int = 0,
    budget: Budget | None = None,
    comparison: Comparison | None = None,
    runs: Path = Path("runs"),
    workers: int | None = None,
    ray: str | None = None,
    experts: Mapping[str, Path] | None = None,
) -> RunLayout:
    """Run a benchmark, or go on with it, and write its report.

    Args:
        suite: Name of the suite of tasks.
        name: Name of the run's folder; the suite's by default.
        base: Name of the base.
        quantization: How to store the base: `none`, `int8` or `nf4`.
        tasks: Some of the suite's tasks; all by default.
        router_seeds: Seeds of the routers, one router each.
        seed: Seed of experts, samples and bootstrap.
        budget: Sizes and settings; the suite's by default.
        comparison: Methods, protocols and expert seeds beside those of every benchmark; by default none.
        runs: Folder of all runs.
        workers: Number of processes; by default one on CUDA, else one a core as far as memory goes. The
            scores do not depend on it.
        ray: Address of a Ray cluster that does the work instead, on as many GPUs or CPUs as it has or
            `workers` says; `local` starts one on this machine. See `ray_crew.py`.
        experts: Task -> folder of an expert that is there already; the others are trained.

    Returns:
        The run's folder with `results.jsonl`, `report.html`, `report.md`, `results.svg` and `mixture`.

    Raises:
        FinLoraError: Suite or task are unknown, the folder holds another run or is in use, or a job failed.
    """
    config, examples = _resolve(
        get_suite(suite),
        tasks=tuple(tasks or get_suite(suite).tasks),
        base=base,
        quantization=quantization,
        router_seeds=tuple(router_seeds),
        seed=seed,
        comparison=comparison or Comparison(),
        budget=budget or BUDGETS[suite],
        experts=experts or {},
    )
    layout = RunLayout(runs / (name or suite))
    layout.folder.mkdir(parents=True, exist_ok=True)
    with _lock(layout):
        claim(layout.config, config)
        _prepare(layout, config, examples, experts or {})
        _run(layout, plan_jobs(layout, config), partial(Workshop, layout, config), workers, ray)
        summarize(layout, config)
    return layout


def _prepare(
    layout: RunLayout,
    config: RunConfig,
    examples: Mapping[tuple[str, str], Sequence[Example]],
    experts: Mapping[str, Path],
) -> None:
    """Put given experts and all examples into the run's folder, where they are not there yet."""
    install_given(layout, experts, partial(load_base, config.base, config.quantization))
    for (task, split), asked in examples.items():
        if not layout.examples(task, split).exists():
            write_examples(layout.examples(task, split), asked)


def _to_compare(budget: Budget, comparison: Comparison, base: str) -> Budget:
    if comparison.compare == "mixtures":
        budget = replace(budget, multitask=False)
    elif comparison.compare == "everything":
        budget = with_everything(budget)
    elif comparison.compare == "single_passes":
        depth = load_config(base).get_text_config(decoder=True).num_hidden_layers
        budget = with_single_passes(budget, depth)
    budget = with_further(budget, comparison)
    if LORAHUB in budget.further and find_spec("nevergrad") is None:
        raise FinLoraError(
            "LoraHub needs nevergrad, which is not installed; run `pip install finlora[merge]`, or name "
            "other methods with --further."
        )
    return budget


def _lock(layout: RunLayout) -> filelock.AcquireReturnProxy:
    try:
        return filelock.FileLock(layout.lock).acquire(timeout=0)
    except filelock.Timeout:
        raise FinLoraError(
            f"Another process works on {layout.folder}; wait for it, or choose another --name."
        ) from None


def summarize(layout: RunLayout, config: RunConfig) -> None:
    """Compute the numbers of a run whose jobs are done, and write its report."""
    shutil.rmtree(layout.hidden_states, ignore_errors=True)
    scalings = {
        str(seed): json.loads(layout.scalings(seed).read_text(encoding="utf-8"))
        for seed in config.router_seeds
    }
    write_json(layout.routing, {"experts": list(config.tasks), "seeds": scalings})
    results = all_results(layout, config)
    write_results(layout.results, results)
    write_table(layout.results_csv, results)
    build_report(layout)


def all_results(layout: RunLayout, config: RunConfig) -> list[Result]:
    """Compute all numbers of a run from the stored answers, protocol by protocol.

    Raises:
        FinLoraError: A file of the run is missing or malformed.
    """
    results: list[Result] = []
    known = config.methods
    for protocol in config.protocols:
        methods = {name: known[name] for name in config.compared_in(protocol)}
        cells = read_cells(
            layout,
            methods,
            config.tasks,
            protocol=protocol,
            expert_seeds=config.expert_seeds_of(protocol),
        )
        results += compute_results(
            cells, methods, seed=config.seed, resamples=config.resamples, config_hash=config.hash
        )
        if protocol.name == IN_DISTRIBUTION:
            trainings = [job.name for job in training_jobs(layout, config, plan_questions(config))]
            results += compute_costs(cells, methods, read_job_costs(layout, trainings), config.hash)
    if readers := readers_of_foreign_text(config):
        readings = {
            name: [layout.foreign(name, seed) for seed in method.seeds] for name, method in readers.items()
        }
        results += foreign_results(
            readings, seed=config.seed, resamples=config.resamples, config_hash=config.hash
        )
    return results


def default_workers() -> int:
    """One process on CUDA, else one a core as far as memory goes."""
    if torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // BYTES_FOR_A_WORKER))


def _resolve(
    suite: Suite,
    *,
    tasks: tuple[str, ...],
    base: str,
    quantization: str,
    router_seeds: tuple[int, ...],
    seed: int,
    comparison: Comparison,
    budget: Budget,
    experts: Mapping[str, Path],
) -> tuple[RunConfig, dict[tuple[str, str], list[Example]]]:
    if quantization not in QUANTIZATIONS:
        raise FinLoraError(f"No quantization {quantization!r}; choose one of {', '.join(QUANTIZATIONS)}.")
    if len(tasks) < 2 or len(set(tasks)) != len(tasks):
        raise FinLoraError(
            f"A benchmark compares at least two different tasks, given are: {', '.join(tasks)}."
        )
    if not router_seeds or len(set(router_seeds)) != len(router_seeds):
        raise FinLoraError("Give at least one router seed, each once.")
    if len({seed, *comparison.more_expert_seeds}) != 1 + len(comparison.more_expert_seeds):
        raise FinLoraError(f"Further expert seeds must differ from each other and from the seed {seed}.")
    if experts and comparison.more_expert_seeds:
        raise FinLoraError(
            "Given experts have one seed; leave further expert seeds out, or train all experts."
        )
    limits = {"train": budget.train_examples, "test": budget.test_examples}
    examples = {
        (task, split): sample_groups(suite.examples(task, split), limits[split], seed)
        for task in tasks
        for split in SPLITS
    }
    for (task, split), found in examples.items():
        if not found:
            raise FinLoraError(
                f"The {suite.name} suite has no {split} examples of {task}; leave the task out."
            )
    config = RunConfig(
        suite=suite.name,
        tasks=tasks,
        base=base,
        quantization=quantization,
        seed=seed,
        router_seeds=router_seeds,
        more_expert_seeds=comparison.more_expert_seeds,
        compare=comparison.compare,
        resamples=RESAMPLES,
        budget=_to_compare(budget, comparison, base),
        data={task: _data_of(task, examples) for task in tasks},
        given_experts=hash_given(experts, tasks),
    )
    return config, examples


def _data_of(task: str, examples: Mapping[tuple[str, str], Sequence[Example]]) -> dict[str, Any]:
    """Version of a task, and number and hash of its examples in each split."""
    hashes = {
        split: {"n": len(examples[task, split]), "sha256": examples_sha256(examples[task, split])}
        for split in SPLITS
    }
    return {"version": get_task(task).version, **hashes}


def _run(
    layout: RunLayout,
    jobs: Sequence[Job],
    make_state: Callable[[], Workshop],
    workers: int | None,
    ray: str | None,
) -> None:
    if ray in (None, LOCAL):
        workers = workers or default_workers()
    done = sum(job.is_done() for job in jobs)
    with tqdm(total=len(jobs), initial=done, unit="job", desc=layout.folder.name, dynamic_ncols=True) as bar:

        def finished(news: Finished) -> None:
            path = layout.cost(news.job.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, news.returned)
            bar.update()

        run_jobs(
            jobs,
            make_state=make_state,
            workers=workers,
            log_folder=layout.logs,
            started=lambda names: bar.set_postfix_str(", ".join(names)),
            finished=finished,
            hire=ProcessCrew if ray is None else partial(RayCrew, ray),
        )
        bar.set_postfix_str("")
