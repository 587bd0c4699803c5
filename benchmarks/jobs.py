"""The plan of a benchmark run: which jobs there are, and which need which."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..experts.adapter import METADATA_FILE
from ..experts.run_folder import is_finished
from ..moe.checkpoint import MIXTURE_FILE
from ..router.train import RESULT_FILE
from .answering_steps import (
    answer_cell,
    answer_together,
    assemble_mixture,
    choose_experts,
    look_at_router,
    read_foreign,
)
from .crew import Job
from .layout import EXPERT_PREFIX, OF_ONE_EXPERT, RunLayout, expert_part, router_part
from .measure import measured
from .methods import XLORA, Method
from .methods.multitasks import PLANS
from .run_config import RunConfig
from .scope import WHOLE, Scope
from .training_steps import (
    add_task_expert,
    merge,
    train_multitask,
    train_seed_router,
    train_task_expert,
    train_task_gate,
)
from .workshop import Workshop

ORDER = (*PLANS, "categories", "experts", "routers", "added", "gates", "merges")
"""Kinds of trained parts, the longest and most needed first."""
Asked = dict[Scope, dict[str, list[str]]]
"""For each scope and method, the tasks that it is asked."""


def plan_jobs(layout: RunLayout, config: RunConfig) -> list[Job]:
    """All jobs of a run, each after those that it needs."""
    asked = plan_questions(config)
    jobs = training_jobs(layout, config, asked)
    for scope, by_method in asked.items():
        methods = config.methods_without(scope.without)
        for name, tasks in by_method.items():
            jobs += _answering_jobs(layout.within(scope), config, methods[name], tasks)
    for seed in config.router_seeds:
        router = (router_part(XLORA, seed),)
        path = layout.scalings(seed)
        jobs.append(_job(f"scalings/{seed}", path.exists, look_at_router, router, scope=WHOLE, seed=seed))
    jobs += _foreign_jobs(layout, config)
    first = (router_part(XLORA, config.router_seeds[0]),)
    jobs.append(_job("mixture", (layout.mixture / MIXTURE_FILE).exists, assemble_mixture, first))
    # The base answers alike in all scopes. Rules come last, since they need the experts' answers.
    different = {job.name: job for job in reversed(jobs)}
    return sorted(reversed(different.values()), key=lambda job: arguments_of(job, choose_experts) is not None)


def readers_of_foreign_text(config: RunConfig) -> dict[str, Method]:
    """The methods that read text of no task: those that are one model for all tasks."""
    if not config.budget.foreign_text:
        return {}
    return {name: method for name, method in config.methods.items() if method.is_one_model}


def _foreign_jobs(layout: RunLayout, config: RunConfig) -> Iterator[Job]:
    for name, method in readers_of_foreign_text(config).items():
        for seed in method.seeds:
            path = layout.foreign(name, seed)
            needs = tuple(layout.job(part) for part in method.needs(seed, config.tasks[0]))
            yield _job(
                layout.name_of(path.with_suffix("")), path.exists, read_foreign, needs, method=name, seed=seed
            )


def arguments_of(job: Job, step: Callable[..., None]) -> dict[str, Any] | None:
    """With what a job calls a step; None if it takes another one."""
    assert isinstance(job.action, partial)
    return job.action.keywords["arguments"] if job.action.keywords["step"] is step else None


def plan_questions(config: RunConfig) -> Asked:
    """Which method is asked what in which scope, by all protocols of a run."""
    asked: dict[Scope, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for protocol in config.protocols:
        names = config.compared_in(protocol)
        experts = [name for name in config.methods if name.startswith(EXPERT_PREFIX)]
        for expert_seed in config.expert_seeds_of(protocol):
            for task in protocol.asked(config.tasks):
                scope = dataclasses.replace(protocol.scope_of(task, config.tasks), expert_seed=expert_seed)
                # Rules and the oracle answer with the experts' answers to these very questions.
                replayed = experts if scope.asking and not protocol.in_one_batch else []
                for name in dict.fromkeys([*names, *replayed]):
                    if task not in asked[scope][name]:
                        asked[scope][name].append(task)
    return asked


def training_jobs(layout: RunLayout, config: RunConfig, asked: Asked) -> list[Job]:
    """Jobs of the experts and of all else that methods need for what they are asked."""
    wanted: dict[str, tuple[Scope, str]] = {}
    for scope, by_method in asked.items():
        methods = config.methods_without(scope.without)
        run = layout.within(scope.training)
        for task in config.tasks:
            wanted[run.job(expert_part(task))] = (scope.experts, expert_part(task))
        for name, tasks in by_method.items():
            for part in _parts(methods[name], tasks):
                owner = scope.experts if part.startswith(OF_ONE_EXPERT) else scope.training
                wanted[run.job(part)] = (owner, part)
                if part.startswith("added/"):
                    before, router = _before_adding(owner, part)
                    wanted[run.within(before).job(router)] = (before, router)
    in_order = sorted(wanted.values(), key=lambda one: (ORDER.index(one[1].split("/")[0]), one[0].without))
    return [_training_job(layout.within(scope), config, part) for scope, part in in_order]


def _parts(method: Method, tasks: Sequence[str]) -> Iterator[str]:
    for seed in method.seeds:
        for task in tasks:
            yield from method.needs(seed, task)


def _training_job(run: RunLayout, config: RunConfig, part: str) -> Job:
    kind, *names = part.split("/")
    experts = tuple(run.job(expert_part(task)) for task in config.tasks if task not in run.scope.without)
    step: Callable[..., None] = train_multitask
    needs: tuple[str, ...] = ()
    result, arguments = METADATA_FILE, {"part": part}
    if kind == "experts":
        step, arguments = train_task_expert, {"task": names[0]}
    elif kind == "merges":
        step, needs = merge, experts
    elif kind == "gates":
        step, needs, result = train_task_gate, (run.job(expert_part(names[0])),), RESULT_FILE
        arguments = {"task": names[0]}
    elif kind == "added":
        before, router = _before_adding(run.scope, part)
        step, result = add_task_expert, RESULT_FILE
        needs = (*experts, run.within(before).job(router))
        arguments = {"task": names[0], "seed": int(names[1])}
    elif kind == "routers":
        step, needs, result = train_seed_router, experts, RESULT_FILE
        arguments = {"method": names[0], "seed": int(names[1])}
    return _job(
        run.job(part),
        partial(is_finished, run.part(part), result=result),
        step,
        needs,
        scope=run.scope,
        **arguments,
    )


def _before_adding(scope: Scope, part: str) -> tuple[Scope, str]:
    """Scope and name of the router to which `added/TASK/SEED` adds an expert."""
    _, task, seed = part.split("/")
    return dataclasses.replace(scope, without=(task,)), router_part(XLORA, seed)


def _answering_jobs(run: RunLayout, config: RunConfig, method: Method, tasks: Sequence[str]) -> Iterator[Job]:
    together = method.rule is not None or run.scope.asking == "mixed_batches"
    for seed in method.seeds:
        if together:
            yield _joint_job(run, config, method, seed, tuple(tasks))
        else:
            yield from (_single_job(run, method, seed, task) for task in tasks if method.open is not None)


def _single_job(run: RunLayout, method: Method, seed: int | None, task: str) -> Job:
    return _job(
        _cell_job(run, method.name, seed, task),
        run.cell(method.name, seed, task).exists,
        answer_cell,
        tuple(run.job(part) for part in method.needs(seed, task)),
        scope=run.scope,
        method=method.name,
        seed=seed,
        task=task,
    )


def _joint_job(
    run: RunLayout, config: RunConfig, method: Method, seed: int | None, tasks: tuple[str, ...]
) -> Job:
    """One job that answers all these tasks."""
    cells = [run.cell(method.name, seed, task) for task in tasks]
    if method.rule is None:
        step = answer_together
        needs = tuple(run.job(part) for part in method.needs(seed, tasks[0]))
    else:
        step = choose_experts
        experts = [f"{EXPERT_PREFIX}{task}" for task in config.tasks]
        needs = tuple(_cell_job(run, expert, None, task) for expert in experts for task in tasks)
    return _job(
        run.name_of(cells[0].parent),
        partial(_all_exist, cells),
        step,
        needs,
        scope=run.scope,
        method=method.name,
        seed=seed,
        tasks=tasks,
    )


def _cell_job(run: RunLayout, method: str, seed: int | None, task: str) -> str:
    return run.name_of(run.cell(method, seed, task).with_suffix(""))


def _all_exist(paths: Sequence[Any]) -> bool:
    return all(path.exists() for path in paths)


def _job(
    name: str,
    is_done: Callable[[], bool],
    step: Callable[..., None],
    needs: tuple[str, ...],
    **arguments: Any,
) -> Job:
    return Job(name, is_done, partial(run_measured, step=step, arguments=arguments), needs)


def run_measured(
    workshop: Workshop, *, step: Callable[..., None], arguments: dict[str, Any]
) -> dict[str, float]:
    """Run one job and return what it cost."""
    with measured() as cost:
        step(workshop, **arguments)
    return dataclasses.asdict(cost)
