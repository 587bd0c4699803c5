"""The jobs of a benchmark run: train experts, multi-task adapter, routers; answer; look at routers."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ..experts.adapter import METADATA_FILE
from ..experts.atomic_write import write_json
from ..experts.base_model import Base, load_base
from ..experts.run_folder import is_finished
from ..experts.settings import ExpertSettings
from ..experts.tasks import Example, get_task, read_examples
from ..experts.tasks.sampling import sample_groups
from ..experts.train import train_expert
from ..moe.checkpoint import MIXTURE_FILE, save_mixture
from ..router import load_mixture
from ..router.train import RESULT_FILE, new_mixture, train_router
from .evaluate import evaluate_model
from .layout import RunLayout
from .measure import measured
from .methods import XLORA, Method, expert_job, router_job
from .pool import Job
from .predictions import write_predictions
from .routing import mean_scalings
from .run_config import RunConfig

MULTITASK = "multitask"


@dataclass
class Workshop:
    """What a worker keeps from job to job.

    Attributes:
        layout: The run's folder.
        config: Its configuration.
    """

    layout: RunLayout
    config: RunConfig

    @cached_property
    def base(self) -> Base:
        """The base, loaded once; every job leaves it as it was."""
        return load_base(self.config.base, self.config.quantization)

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The run's methods."""
        return self.config.methods

    def examples(self, task: str, split: str) -> list[Example]:
        """Examples of one split of a task, as stored in the run's folder."""
        return read_examples(self.layout.examples(task, split))


def plan_jobs(layout: RunLayout, config: RunConfig) -> list[Job]:
    """All jobs of a run, the longest and most needed first.

    The multi-task adapter takes as long as all experts together, so it starts first, beside them.
    """
    experts = tuple(expert_job(task) for task in config.tasks)
    jobs = [_training_job(layout, MULTITASK, train_multitask)]
    jobs += [_training_job(layout, expert_job(task), train_task_expert, task=task) for task in config.tasks]
    jobs += [
        _training_job(
            layout,
            router_job(method, seed),
            train_seed_router,
            needs=experts,
            result=RESULT_FILE,
            method=method,
            seed=seed,
        )
        for method in config.budget.routers
        for seed in config.router_seeds
    ]
    for method in config.methods.values():
        jobs += _answering_jobs(layout, config, method)
    for seed in config.router_seeds:
        path = layout.scalings(seed)
        jobs.append(
            _job(f"scalings/{seed}", path.exists, look_at_router, (router_job(XLORA, seed),), seed=seed)
        )
    first = router_job(XLORA, config.router_seeds[0])
    jobs.append(_job("mixture", (layout.mixture / MIXTURE_FILE).exists, assemble_mixture, (first,)))
    return jobs


def training_jobs(config: RunConfig) -> list[str]:
    """Names of the jobs that train something."""
    routers = [router_job(method, seed) for method in config.budget.routers for seed in config.router_seeds]
    return [MULTITASK, *map(expert_job, config.tasks), *routers]


def train_task_expert(workshop: Workshop, *, task: str) -> None:
    """Train the expert of one task."""
    train_expert(
        task,
        workshop.examples(task, "train"),
        workshop.base,
        workshop.layout.expert(task),
        dataclasses.replace(workshop.config.budget.expert_settings(task), seed=workshop.config.seed),
        task_version=get_task(task).version,
    )


def train_multitask(workshop: Workshop) -> None:
    """Train one adapter on the examples of all tasks."""
    config = workshop.config
    by_task = [
        (workshop.examples(task, "train"), config.budget.expert_settings(task)) for task in config.tasks
    ]
    settings = multitask_settings(config.budget.expert, len(config.tasks))
    train_expert(
        MULTITASK,
        multitask_examples(by_task, config.seed),
        workshop.base,
        workshop.layout.multitask,
        dataclasses.replace(settings, seed=config.seed),
    )


def multitask_settings(settings: ExpertSettings, task_count: int) -> ExpertSettings:
    """The experts' recipe for one adapter with the parameters, steps and scale of all of them together.

    Where experts train for a number of steps, it runs once through what `multitask_examples` lays out.
    """
    growth = math.sqrt(task_count) if settings.method == "rslora" else task_count
    return dataclasses.replace(
        settings,
        rank=settings.rank * task_count,
        alpha=settings.alpha * growth,
        max_steps=None,
        epochs=settings.epochs if settings.max_steps is None else 1.0,
    )


def multitask_examples(
    by_task: Sequence[tuple[Sequence[Example], ExpertSettings]], seed: int
) -> list[Example]:
    """The examples of all tasks, each task as often as its own expert sees it.

    Drawn in proportion to their number instead, a task with few examples would hardly be seen, and the
    adapter would be weaker than it has to be.

    Args:
        by_task: Examples of each task and the settings of its expert.
        seed: Determines which ones are drawn.
    """
    order = random.Random(seed)
    drawn: list[Example] = []
    for examples, settings in by_task:
        if settings.max_steps is None:
            drawn += examples
            continue
        seen = settings.max_steps * settings.batch_size * settings.gradient_accumulation
        passes = -(-seen // len(examples))
        shuffled = [one for _ in range(passes) for one in order.sample(examples, len(examples))]
        drawn += shuffled[:seen]
    return drawn


def train_seed_router(workshop: Workshop, *, method: str, seed: int) -> None:
    """Train one method's X-LoRA router of one seed on all tasks, experts and base frozen."""
    config, layout = workshop.config, workshop.layout
    experts = {task: layout.expert(task) for task in config.tasks}
    examples = {
        task: sample_groups(workshop.examples(task, "train"), config.budget.router_examples, config.seed)
        for task in config.tasks
    }
    plan = config.budget.routers[method]
    steps = config.budget.router.label_steps if plan.label_steps is None else plan.label_steps
    train_router(
        new_mixture(workshop.base, experts, plan.router, seed=seed, mode=plan.mode),
        examples,
        layout.router(method, seed),
        dataclasses.replace(config.budget.router, seed=seed, label_steps=steps),
        cache_folder=layout.hidden_states,
    )


def answer_cell(workshop: Workshop, *, method: str, seed: int | None, task: str) -> None:
    """Let one method answer the test questions of one task."""
    layout, base = workshop.layout, workshop.base
    open_method = workshop.methods[method].open
    if open_method is None:
        raise ValueError(f"{method} has no answers of its own")
    with open_method(layout, base, seed) as model:
        predictions, summary = evaluate_model(
            model,
            base,
            get_task(task),
            workshop.examples(task, "test"),
            label=method if seed is None else f"{method}:{seed}",
            batch_size=workshop.config.budget.answer_batch_size,
        )
    write_predictions(layout.cell(method, seed, task), predictions, summary)


def look_at_router(workshop: Workshop, *, seed: int) -> None:
    """Average the scalings of one router over test questions of every task."""
    mixture = load_mixture(workshop.layout.router(XLORA, seed), base=workshop.base)
    limit = workshop.config.budget.routing_examples
    maps = {
        task: mean_scalings(mixture, workshop.base.tokenizer, workshop.examples(task, "test")[:limit])
        for task in workshop.config.tasks
    }
    path = workshop.layout.scalings(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        path, {tokens: {task: one[tokens] for task, one in maps.items()} for tokens in ("prompt", "answer")}
    )


def assemble_mixture(workshop: Workshop) -> None:
    """Save the mixture with the first router where users look for it."""
    first = workshop.layout.router(XLORA, workshop.config.router_seeds[0])
    save_mixture(load_mixture(first, base=workshop.base), workshop.layout.mixture)


def _answering_jobs(layout: RunLayout, config: RunConfig, method: Method) -> list[Job]:
    if method.open is None:
        return []
    return [
        _job(
            "/".join(layout.cell(method.name, seed, task).relative_to(layout.folder).with_suffix("").parts),
            layout.cell(method.name, seed, task).exists,
            answer_cell,
            tuple(part.format(seed=seed) for part in method.parts),
            method=method.name,
            seed=seed,
            task=task,
        )
        for seed in method.seeds
        for task in config.tasks
    ]


def _training_job(
    layout: RunLayout,
    name: str,
    step: Callable[..., None],
    *,
    needs: tuple[str, ...] = (),
    result: str = METADATA_FILE,
    **arguments: Any,
) -> Job:
    return _job(name, partial(is_finished, layout.folder / name, result=result), step, needs, **arguments)


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
