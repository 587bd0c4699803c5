"""What a rule that chooses one expert a question is worth on a finished run: start at `replay_rule`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..experts.base_model import load_base
from ..experts.errors import FinLoraError
from ..router.selectors import SELECTORS
from .findings import with_interval
from .layout import RunLayout
from .predictions import clusters
from .replay import Choices, StoredAnswers, best_by_item, replay, right_experts
from .results import Result, ResultIndex, write_results
from .selection import Selection, select, write_choices
from .statistics import MACRO, Bootstrap
from .tables import MISSING, Table

ORACLE = "oracle"
BEST_BY_ITEM = "best_by_item"
RULES = (*SELECTORS, ORACLE, BEST_BY_ITEM)
RESULTS_FILE = "results.jsonl"
_CONFIG_KEYS = {"tasks", "base", "quantization", "seed", "resamples", "budget"}
_RULE = "the rule"  # in the bootstrap, where the oracle may be compared with itself


@dataclass(frozen=True)
class Replayed:
    """A rule's choices and what they are worth.

    Attributes:
        rule: Its name.
        seed: Its seed, None for a rule that has none.
        tasks: Tasks that were asked.
        selection: What it chose.
        results: The numbers: `score`, `regret:oracle` and `regret:best_by_item` in points, and
            `right_expert`, how often in percent the expert of the question's task was chosen.
    """

    rule: str
    seed: int | None
    tasks: tuple[str, ...]
    selection: Selection
    results: list[Result]

    def table(self) -> Table:
        """One row a task, and the mean."""
        find = partial(ResultIndex(self.results).find, self.rule, seed=self.seed)
        get = partial(ResultIndex(self.results).get, self.rule, seed=self.seed)
        rows = []
        for task in (*self.tasks, MACRO):
            right = find(task, "right_expert")
            chosen = self.selection.choices.get(task)
            rows.append(
                (
                    task,
                    with_interval(get(task)),
                    with_interval(get(task, f"regret:{ORACLE}"), signed=True),
                    with_interval(get(task, f"regret:{BEST_BY_ITEM}"), signed=True),
                    MISSING if right is None else f"{right.value:.1f} %",
                    MISSING if chosen is None else _most_chosen([choice.expert for choice in chosen]),
                )
            )
        headers = (
            "Task",
            self.rule,
            "Regret to the oracle",
            "Regret to the best by item",
            "Right expert",
            "Most chosen",
        )
        return Table(headers, tuple(rows), MACRO)


def replay_rule(
    layout: RunLayout, rule: str, *, without: Sequence[str] = (), seed: int = 0, prompts: int | None = None
) -> Replayed:
    """Let a rule choose an expert for every test question of a finished run, and score it by stored answers.

    Writes the choices and the numbers to `RunLayout.choices`; nothing else in the run is changed.

    Args:
        layout: The run.
        rule: One of `RULES`.
        without: Experts that the rule may not choose, and whose prompts it does not see.
        seed: Seed of the rule and of the training prompts that it learns from.
        prompts: Most training prompts of each expert; by default as many as the run's routers saw.

    Raises:
        FinLoraError: The rule or an expert is unknown, fewer than two experts are left, or the run is not
            complete.
    """
    if rule not in RULES:
        raise FinLoraError(f"No rule {rule!r}; choose one of {', '.join(RULES)}.")
    if prompts is not None and prompts < 1:
        raise FinLoraError(f"A rule learns from 1 or more prompts of each expert, got {prompts}.")
    config = _read_config(layout)
    tasks = tuple(config["tasks"])
    experts = _experts_left(tasks, without)
    answers = StoredAnswers.read(layout, tasks)
    if rule == ORACLE:
        if without:
            raise FinLoraError("The oracle takes the right expert of every task; leave out --without.")
        selection = Selection(right_experts(answers))
    elif rule == BEST_BY_ITEM:
        selection = Selection(best_by_item(answers, experts))
    else:
        base = partial(load_base, config["base"], config["quantization"])
        limit = config["budget"]["router_examples"] if prompts is None else prompts
        selection = select(answers, SELECTORS[rule](base, seed), experts=experts, prompts=limit, seed=seed)
    rule_seed = seed if rule in SELECTORS else None
    results = list(_numbers(answers, selection, rule, experts, config, seed=rule_seed))
    folder = layout.choices(rule, seed, without)
    write_choices(folder, selection.choices)
    write_results(folder / RESULTS_FILE, results)
    return Replayed(rule, rule_seed, tasks, selection, results)


def compare(
    answers: StoredAnswers, choices: Choices, experts: Sequence[str], *, seed: int, resamples: int
) -> Bootstrap:
    """Resample the scores of a rule beside those of the oracle and of the best choice by item.

    Args:
        answers: The experts' answers.
        choices: The rule's choices, for all tasks.
        experts: Those that the rule, and the best choice by item, may choose.
        seed: Seed of the bootstrap; with the run's own, the draws are those of its report.
        resamples: Draws of the bootstrap.
    """
    by_name: dict[str, Choices] = {
        _RULE: choices,
        ORACLE: right_experts(answers),
        BEST_BY_ITEM: best_by_item(answers, experts),
    }
    scores = {
        name: {
            task: np.array([[100 * one.score for one in predictions]])
            for task, predictions in replay(answers, chosen).items()
        }
        for name, chosen in by_name.items()
    }
    groups = {task: clusters(cells[task].predictions) for task, cells in answers.cells.items()}
    return Bootstrap(scores, groups, resamples=resamples, seed=seed)


def _numbers(
    answers: StoredAnswers,
    selection: Selection,
    rule: str,
    experts: Sequence[str],
    config: Mapping[str, Any],
    *,
    seed: int | None,
) -> Iterator[Result]:
    bootstrap = compare(
        answers, selection.choices, experts, seed=config["seed"], resamples=config["resamples"]
    )
    right = {
        task: 100 * sum(choice.expert == task for choice in chosen) / len(chosen)
        for task, chosen in selection.choices.items()
        if task in experts
    }
    right[MACRO] = sum(right.values()) / len(right)
    for task in (*answers.tasks, MACRO):
        own = answers.tasks if task == MACRO else (task,)
        summaries = [answers.cells[one][one].summary for one in own]
        record = partial(
            Result,
            method=rule,
            task=task,
            task_version=None if task == MACRO else summaries[0].task_version,
            n=sum(one.n for one in summaries),
            seed=seed,
            commit=" ".join(sorted({one.commit or "unknown" for one in summaries})),
        )
        intervals = {
            "score": bootstrap.score(_RULE, task),
            f"regret:{ORACLE}": bootstrap.difference(ORACLE, _RULE, task),
            f"regret:{BEST_BY_ITEM}": bootstrap.difference(BEST_BY_ITEM, _RULE, task),
        }
        for metric, interval in intervals.items():
            yield record(metric=metric, value=interval.value, low=interval.low, high=interval.high)
        if task in right:
            yield record(metric="right_expert", value=right[task])


def _most_chosen(experts: Sequence[str]) -> str:
    [(expert, count)] = Counter(experts).most_common(1)
    return f"{expert} {100 * count / len(experts):.0f} %"


def _read_config(layout: RunLayout) -> Mapping[str, Any]:
    try:
        config = json.loads(layout.config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or not config.keys() >= _CONFIG_KEYS:
        raise FinLoraError(
            f"{layout.folder} is no run of the cross-task benchmark ({layout.config.name} is missing or "
            "malformed); give the folder that `finlora benchmark` made."
        )
    return config


def _experts_left(tasks: Sequence[str], without: Sequence[str]) -> list[str]:
    if unknown := sorted(set(without) - set(tasks)):
        raise FinLoraError(f"The run has no expert {unknown[0]!r}; it has {', '.join(tasks)}.")
    left = [task for task in tasks if task not in without]
    if len(left) < 2:
        raise FinLoraError(
            f"A rule chooses between two or more experts, but {', '.join(left) or 'none'} is left; leave out "
            "less with --without."
        )
    return left
