"""How the jobs of a run answer: one cell a job, or one job for all tasks that are asked together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..experts.encoding import token_limit
from ..experts.tasks import Example, get_task
from ..moe.checkpoint import save_mixture
from ..router import load_mixture
from ..router.selectors import SELECTORS
from .asking import WAYS, with_examples
from .evaluate import evaluate_model, evaluate_together
from .foreign_text import read_foreign_text, write_reading
from .methods import XLORA, Method
from .methods.method import Call
from .predictions import Prediction, Summary, write_predictions
from .replay import StoredAnswers, replayed_cell
from .routing import mean_scalings, write_scalings
from .scope import WHOLE, Scope
from .selection import select, write_choices
from .why.stored import look_at, write_look
from .workshop import Workshop

QUESTIONS_BESIDE_FOREIGN_TEXT = 4
"""Questions of each task on which abstention is looked at beside text of no task."""


def answer_cell(workshop: Workshop, *, scope: Scope, method: str, seed: int | None, task: str) -> None:
    """Let one method answer the test questions of one task, and keep the answers."""
    cell = ask(workshop, scope=scope, method=method, seed=seed, task=task)
    write_predictions(workshop.layout.within(scope).cell(method, seed, task), *cell)


def ask(
    workshop: Workshop, *, scope: Scope, method: str, seed: int | None, task: str
) -> tuple[list[Prediction], Summary]:
    """Let one method answer the test questions of one task."""
    chosen = _method(workshop, scope, method)
    examples = workshop.examples(task, "test")
    assert chosen.open is not None
    with chosen.open(_call(workshop, scope, seed, task)) as model:
        return evaluate_model(
            model,
            workshop.base,
            get_task(task),
            examples,
            label=_label(method, seed),
            batch_size=workshop.config.budget.answer_batch_size,
            prompts=_prompts(workshop, scope, chosen, task, examples),
        )


def answer_together(
    workshop: Workshop, *, scope: Scope, method: str, seed: int | None, tasks: tuple[str, ...]
) -> None:
    """Let one method answer the test questions of several tasks in batches in which they are mixed."""
    chosen = _method(workshop, scope, method)
    assert chosen.open is not None
    assert chosen.is_one_model
    with chosen.open(_call(workshop, scope, seed, tasks[0])) as model:
        evaluations = evaluate_together(
            model,
            workshop.base,
            [(get_task(task), workshop.examples(task, "test")) for task in tasks],
            label=_label(method, seed),
            batch_size=workshop.config.budget.answer_batch_size,
        )
    for task, (predictions, summary) in evaluations.items():
        write_predictions(workshop.layout.within(scope).cell(method, seed, task), predictions, summary)


def choose_experts(
    workshop: Workshop, *, scope: Scope, method: str, seed: int | None, tasks: tuple[str, ...]
) -> None:
    """Let a rule choose an expert for each test question of the tasks, and look up the answers."""
    run, config = workshop.layout.within(scope), workshop.config
    rule_seed = config.seed if seed is None else seed
    answers = StoredAnswers.read(run, tasks, config.tasks)
    experts = workshop.tasks_in(scope)
    chosen = _method(workshop, scope, method)
    assert chosen.rule is not None
    selection = select(
        answers,
        SELECTORS[chosen.rule](lambda: workshop.base, rule_seed),
        experts=experts,
        prompts=config.budget.router_examples,
        seed=rule_seed,
        wordings=chosen.learns_wordings,
    )
    write_choices(run.choices(method, rule_seed), selection.choices)
    for task in tasks:
        cell = replayed_cell(
            answers,
            task,
            selection.choices[task],
            workshop.base,
            label=_label(method, seed),
            experts=experts,
            seconds=selection.seconds[task],
        )
        write_predictions(run.cell(method, seed, task), *cell)


def read_foreign(workshop: Workshop, *, method: str, seed: int | None) -> None:
    """Let one method read text that belongs to no task."""
    chosen = _method(workshop, WHOLE, method)
    assert chosen.open is not None
    with chosen.open(_call(workshop, WHOLE, seed, workshop.config.tasks[0])) as model:
        reading = read_foreign_text(model, workshop.base.tokenizer)
        if reading.abstention is not None:
            questions = [
                example.context
                for task in workshop.config.tasks
                for example in workshop.examples(task, "test")[:QUESTIONS_BESIDE_FOREIGN_TEXT]
            ]
            own = read_foreign_text(model, workshop.base.tokenizer, questions).abstention
            reading = dataclasses.replace(reading, abstention_on_tasks=own)
    write_reading(workshop.layout.foreign(method, seed), reading)


def look_at_router(workshop: Workshop, *, scope: Scope, seed: int) -> None:
    """Average the scalings of one router over test questions of every task."""
    run = workshop.layout.within(scope)
    mixture = load_mixture(run.router(XLORA, seed), base=workshop.base)
    limit = workshop.config.budget.routing_examples
    maps = {
        task: mean_scalings(mixture, workshop.base.tokenizer, workshop.examples(task, "test")[:limit])
        for task in workshop.config.tasks
    }
    write_scalings(run.scalings(seed), maps)


def assemble_mixture(workshop: Workshop) -> None:
    """Save the mixture with the first router where users look for it, and what it does on some questions."""
    config = workshop.config
    first = workshop.layout.router(XLORA, config.router_seeds[0])
    mixture = load_mixture(first, base=workshop.base)
    limit = config.budget.routing_examples
    asked = {task: workshop.examples(task, "test")[:limit] for task in config.tasks}
    write_look(workshop.layout.router_look, look_at(mixture, asked))
    save_mixture(mixture, workshop.layout.mixture)


def _label(method: str, seed: int | None) -> str:
    return method if seed is None else f"{method}:{seed}"


def _method(workshop: Workshop, scope: Scope, method: str) -> Method:
    return workshop.config.methods_without(scope.without)[method]


def _call(workshop: Workshop, scope: Scope, seed: int | None, task: str) -> Call:
    return Call(
        run=workshop.layout.within(scope),
        base=workshop.base,
        seed=seed,
        task=task,
        budget=workshop.config.budget,
    )


def _prompts(
    workshop: Workshop, scope: Scope, method: Method, task: str, examples: Sequence[Example]
) -> list[str]:
    prompts = [WAYS[scope.asking](example.context) for example in examples]
    if not method.shots:
        return prompts
    return with_examples(
        prompts,
        workshop.examples(task, "train"),
        workshop.base.tokenizer,
        shots=method.shots,
        limit=token_limit(workshop.base.model.config) - get_task(task).max_new_tokens,
        seed=workshop.config.seed,
    )
