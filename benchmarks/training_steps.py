"""What the jobs of a run train: experts, multi-task adapters, merges, routers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..experts.settings import ExpertSettings
from ..experts.tasks import Example, get_task
from ..experts.tasks.sampling import sample_groups
from ..experts.train import train_expert
from ..moe.merging.merge import TAKES_RANK, merge_experts
from ..moe.merging.settings import MergeSettings
from ..router import load_mixture
from ..router.add_expert import add_expert
from ..router.learned_merges import merge_by_learning
from ..router.merge_settings import CatSettings, LoraHubSettings
from ..router.phatgoose import train_gate
from ..router.train import new_mixture, train_router
from .asking import in_training_wordings
from .methods import XLORA
from .methods.gates import gate_part
from .methods.method import experts_of
from .methods.multitasks import MULTITASK, category_part
from .methods.routers import added_part
from .multitask_data import multitask_examples, multitask_settings, same_rank_settings, sampled_examples
from .scope import Scope
from .workshop import Workshop


def train_task_expert(workshop: Workshop, *, scope: Scope, task: str) -> None:
    """Train the expert of one task."""
    train_expert(
        task,
        workshop.examples(task, "train"),
        workshop.base,
        workshop.layout.within(scope).expert(task),
        dataclasses.replace(
            workshop.config.budget.expert_settings(task), seed=workshop.config.training_seed(scope)
        ),
        task_version=get_task(task).version,
    )


def train_multitask(workshop: Workshop, *, scope: Scope, part: str) -> None:
    """Train one adapter on the examples of all tasks of a scope, or on those of one category.

    Args:
        workshop: The worker's.
        scope: Whose tasks.
        part: A name of `multitasks.PLANS`, or `categories/...`.
    """
    budget, seed = workshop.config.budget, workshop.config.training_seed(scope)
    tasks = workshop.tasks_in(scope)
    if part.startswith("categories/"):
        tasks = tuple(task for task in tasks if category_part(task) == part)
    by_task: Sequence[tuple[Sequence[Example], ExpertSettings]] = [
        (workshop.examples(task, "train"), budget.expert_settings(task)) for task in tasks
    ]
    draw = sampled_examples if part == "multitask_sampled" else multitask_examples
    settings = (
        same_rank_settings(budget.expert)
        if part == "multitask_rank"
        else multitask_settings(budget.expert, len(tasks))
    )
    train_expert(
        MULTITASK,
        draw(by_task, seed),
        workshop.base,
        workshop.layout.within(scope).part(part),
        dataclasses.replace(settings, seed=seed),
    )


def merge(workshop: Workshop, *, scope: Scope, part: str) -> None:
    """Merge the experts of a scope as the part says: `merges/METHOD` or `merges/lorahub/TASK`."""
    run, seed = workshop.layout.within(scope), workshop.config.training_seed(scope)
    folders = experts_of(run, workshop.tasks_in(scope))
    _, method, *target = part.split("/")
    if method == "cat":
        settings = CatSettings(seed=seed)
    elif method == "lorahub":
        settings = LoraHubSettings(seed=seed)
    else:
        rank = workshop.config.budget.expert.rank if method in TAKES_RANK else None
        merge_experts(method, folders, run.part(part), MergeSettings(seed=seed, rank=rank))
        return
    examples = draw_examples(
        workshop, target or workshop.tasks_in(scope), workshop.config.budget.merge_examples
    )
    merge_by_learning(folders, workshop.base, examples, run.part(part), settings, progress=False)


def train_seed_router(workshop: Workshop, *, scope: Scope, method: str, seed: int) -> None:
    """Train one method's X-LoRA router of one seed on all tasks of a scope, experts and base frozen."""
    config, run = workshop.config, workshop.layout.within(scope)
    tasks = workshop.tasks_in(scope)
    plan = config.budget.routers[method]
    steps = config.budget.router.label_steps if plan.label_steps is None else plan.label_steps
    examples = router_examples(workshop, tasks)
    if plan.wordings:
        examples = {
            task: in_training_wordings(asked, authors=plan.authors) for task, asked in examples.items()
        }
    train_router(
        new_mixture(workshop.base, experts_of(run, tasks), plan.router, seed=seed, mode=plan.mode),
        examples,
        run.router(method, seed),
        dataclasses.replace(
            config.budget.router, seed=seed, label_steps=steps, prompt_dropout=plan.prompt_dropout
        ),
        cache_folder=run.hidden_states,
    )


def train_task_gate(workshop: Workshop, *, scope: Scope, task: str) -> None:
    """Train PHATGOOSE's gate of one expert on the examples of its task."""
    run = workshop.layout.within(scope)
    train_gate(
        workshop.base,
        task,
        run.expert(task),
        router_examples(workshop, [task])[task],
        run.part(gate_part(task)),
        dataclasses.replace(workshop.config.budget.gates, seed=workshop.config.training_seed(scope)),
        progress=False,
    )


def add_task_expert(workshop: Workshop, *, scope: Scope, task: str, seed: int) -> None:
    """Add the expert of a task to the X-LoRA that was trained without it."""
    config, run = workshop.config, workshop.layout.within(scope)
    before = run.within(dataclasses.replace(scope, without=(task,)))
    add_expert(
        load_mixture(before.router(XLORA, seed), base=workshop.base),
        task,
        run.expert(task),
        router_examples(workshop, workshop.tasks_in(scope)),
        run.part(added_part(task, seed)),
        dataclasses.replace(config.budget.router, seed=seed),
        cache_folder=run.hidden_states,
        progress=False,
    )


def router_examples(workshop: Workshop, tasks: Sequence[str]) -> dict[str, list[Example]]:
    """The training examples that routers learn from, by task."""
    return draw_examples(workshop, tasks, workshop.config.budget.router_examples)


def draw_examples(workshop: Workshop, tasks: Sequence[str], limit: int) -> dict[str, list[Example]]:
    """At most `limit` training examples of each task, the same ones at every call."""
    return {
        task: sample_groups(workshop.examples(task, "train"), limit, workshop.config.seed) for task in tasks
    }
