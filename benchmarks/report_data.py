"""What a report is made from: everything that a finished run left, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..experts.errors import FinLoraError
from .findings import best_expert, rivals, shown_title
from .layout import EXPERT_PREFIX, RunLayout
from .methods import Method, make_methods
from .plots import Dot
from .predictions import Summary, read_predictions
from .protocols import PROTOCOLS
from .results import IN_DISTRIBUTION, ResultIndex, read_results
from .scoring import COMPARED
from .statistics import MACRO


@dataclass(frozen=True)
class Findings:
    """All that a report shows, read from a run's folder.

    Attributes:
        config: The run's resolved configuration.
        index: Its results.
        routing: Mean scalings by router seed, kind of token, task and expert.
        summaries: For every task the summary of the base's answers.
    """

    config: Mapping[str, Any]
    index: ResultIndex
    routing: Mapping[str, Any]
    summaries: Mapping[str, Summary]

    @classmethod
    def read(cls, layout: RunLayout) -> Findings:
        """Read a run that is complete.

        Raises:
            FinLoraError: A file is missing or malformed.
        """
        config = _read_json(layout, "config.json")
        return cls(
            config=config,
            index=ResultIndex(read_results(layout.results)),
            routing=_read_json(layout, "routing.json"),
            summaries={
                task: read_predictions(layout.cell("base", None, task))[1] for task in config["tasks"]
            },
        )

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.config["tasks"])

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The run's methods."""
        budget = self.config["budget"]
        return make_methods(
            self.tasks,
            self.config["router_seeds"],
            budget["routers"],
            budget.get("further", ()),
            multitask=budget.get("multitask", True),
        )

    @cached_property
    def protocols(self) -> list[str]:
        """Names of the protocols with numbers, in the order of reports."""
        return [name for name in PROTOCOLS if self.index.find(COMPARED, MACRO, protocol=name) is not None]

    @cached_property
    def shown(self) -> list[str]:
        """Methods compared in tables and plots: of the single experts only the best."""
        names = [name for name in self.methods if not name.startswith(EXPERT_PREFIX)]
        return [*names[:2], best_expert(self.index, self.tasks), *names[2:]]

    @cached_property
    def few(self) -> list[str]:
        """The methods that are shown where there is no room for all: rivals in the order of reports."""
        wanted = {COMPARED, *rivals(self.index, self.methods, self.tasks)}
        return [name for name in self.shown if name in wanted]

    def dots(self, task: str, names: Sequence[str], protocol: str = IN_DISTRIBUTION) -> list[Dot]:
        """Scores of methods on one task, or on all; what was not asked is left out."""
        dots = []
        for name in names:
            result, method = self.index.find(name, task, protocol=protocol), self.methods[name]
            if result is None:
                continue
            low, high = (result.value if end is None else end for end in (result.low, result.high))
            # The task in brackets would make the column of names too wide.
            title = shown_title(method).split(" (")[0]
            dots.append(Dot(title, result.value, low, high, method.colour))
        return dots

    def mean_scalings(self, tokens: str) -> list[list[float]]:
        """Mean scalings (task, expert) of `prompt` or `answer` tokens, over all router seeds."""
        seeds = list(self.routing["seeds"].values())
        return [
            [
                sum(seed[tokens][task][expert] for seed in seeds) / len(seeds)
                for expert in range(len(self.tasks))
            ]
            for task in self.tasks
        ]


def _read_json(layout: RunLayout, name: str) -> dict[str, Any]:
    path = layout.folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinLoraError(f"{path} cannot be read ({error}); run the benchmark to its end.") from error
