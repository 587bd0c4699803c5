"""The report of a run: one self-contained HTML page, its tables in Markdown, and a picture of the headline.

Everything is made from files in the run's folder, so a report can be made again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import plotly.graph_objects as go

from ..experts.atomic_write import write_text
from ..experts.errors import FinLoraError
from ..experts.tasks import get_task
from ..experts.tasks.suites import get_suite
from . import tables
from .findings import best_expert, headline, shown_title
from .layout import RunLayout
from .methods import EXPERT_PREFIX, Method, make_methods
from .page import plot_html, render_page
from .picture import dot_plot_svg
from .plots import SCORE_COLOURS, WEIGHT_COLOURS, Dot, dot_plot, heat_map, task_plot
from .predictions import Summary, read_predictions
from .results import ResultIndex, read_results
from .statistics import MACRO
from .tables import Table

TEMPLATE = "report.html.jinja"
MACRO_AXIS = "macro score: mean over the tasks, 0 to 100 (line: 95 % interval)"


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
        return make_methods(self.tasks, self.config["router_seeds"], self.config["budget"]["routers"])

    @cached_property
    def shown(self) -> list[str]:
        """Methods compared in tables and plots: of the single experts only the best."""
        names = [name for name in self.methods if not name.startswith(EXPERT_PREFIX)]
        return [*names[:2], best_expert(self.index, self.tasks), *names[2:]]

    def dots(self, task: str) -> list[Dot]:
        """Scores of the compared methods on one task, or on all."""
        dots = []
        for name in self.shown:
            result, method = self.index.get(name, task), self.methods[name]
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


def build_report(layout: RunLayout) -> None:
    """Write `report.html`, `report.md` and `results.svg` of a run that is complete.

    Raises:
        FinLoraError: A file of the run is missing or malformed.
    """
    findings = Findings.read(layout)
    sentences = headline(findings.index, findings.methods, findings.tasks)
    all_tables = _tables(findings)
    title = f"FinLoRA cross-task benchmark: {get_suite(findings.config['suite']).title.lower()}"
    write_text(
        layout.picture,
        dot_plot_svg(findings.dots(MACRO), title="Mean score over all tasks", x_title=MACRO_AXIS),
    )
    write_text(layout.report_markdown, _markdown(title, sentences, all_tables, findings, layout))
    write_text(layout.report_html, _html(title, sentences, all_tables, findings, layout))


def _tables(findings: Findings) -> dict[str, Table]:
    index, methods, shown, tasks = findings.index, findings.methods, findings.shown, findings.tasks
    return {
        "headline": tables.headline_table(index, methods, shown),
        "tasks": tables.task_table(index, methods, shown, tasks),
        "seeds": tables.seed_table(index, methods, tasks),
        "costs": tables.cost_table(index, methods, shown),
        "methods": tables.method_table(methods, shown),
        "data": tables.data_table(
            findings.config["data"], {task: one.too_long for task, one in findings.summaries.items()}
        ),
        "origin": _origin(findings),
    }


def _origin(findings: Findings) -> Table:
    first = next(iter(findings.summaries.values()))
    score = findings.index.get("xlora", MACRO)
    rows = [
        ("Base", f"{first.base}, revision {first.base_revision}"),
        ("Quantization", first.quantization),
        ("Commit", score.commit),
        (
            "Seed, router seeds",
            f"{findings.config['seed']}; {', '.join(map(str, findings.config['router_seeds']))}",
        ),
        ("Configuration hash", score.config_hash),
    ]
    for part, settings in findings.config["budget"].items():
        if isinstance(settings, dict):
            rows.append(
                (f"Settings: {part}", ", ".join(f"{key} {_plain(value)}" for key, value in settings.items()))
            )
        else:
            rows.append((f"Settings: {part}", _plain(settings)))
    return Table(("What", "Value"), tuple(rows), prose=True)


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _figures(findings: Findings) -> dict[str, go.Figure]:
    tasks, index = findings.tasks, findings.index
    matrix_rows = [*(f"{EXPERT_PREFIX}{task}" for task in tasks), "base", "uniform", "multitask", "xlora"]
    figures = {
        "headline": dot_plot(findings.dots(MACRO), x_title=MACRO_AXIS),
        "tasks": task_plot(
            {get_task(task).title: findings.dots(task) for task in tasks},
            x_title="score, 0 to 100 (line: 95 % interval)",
        ),
        "transfer": heat_map(
            [[index.get(name, task).value for task in tasks] for name in matrix_rows],
            rows=[
                name.removeprefix(EXPERT_PREFIX)
                if name.startswith(EXPERT_PREFIX)
                else findings.methods[name].title
                for name in matrix_rows
            ],
            columns=tasks,
            row_title="answered by",
            column_title="asked about",
            highest=100,
            digits=0,
            colours=SCORE_COLOURS,
        ),
    }
    for tokens in ("prompt", "answer"):
        figures[f"routing_{tokens}"] = heat_map(
            findings.mean_scalings(tokens),
            rows=tasks,
            columns=findings.routing["experts"],
            row_title="task asked",
            column_title="expert used",
            highest=1,
            digits=2,
            colours=WEIGHT_COLOURS,
        )
    return figures


def _html(
    title: str,
    sentences: Sequence[str],
    all_tables: Mapping[str, Table],
    findings: Findings,
    layout: RunLayout,
) -> str:
    return render_page(
        __package__,
        TEMPLATE,
        title=title,
        sentences=sentences,
        tables=all_tables,
        plots={name: plot_html(figure, name) for name, figure in _figures(findings).items()},
        task_count=len(findings.tasks),
        item_count=sum(one.n for one in findings.summaries.values()),
        seed_count=len(findings.config["router_seeds"]),
        resamples=findings.config["resamples"],
        suite=findings.config["suite"],
        origin=next(iter(findings.summaries.values())),
        command=_command(findings, layout),
    )


def _markdown(
    title: str,
    sentences: Sequence[str],
    all_tables: Mapping[str, Table],
    findings: Findings,
    layout: RunLayout,
) -> str:
    parts = [
        f"# {title}",
        f"**{sentences[0]}**",
        "\n".join(f"- {sentence}" for sentence in sentences[1:]),
        f"![Mean score of every method over all tasks, with 95 % intervals]({layout.picture.name})",
        "Numbers in brackets are 95 % intervals of a paired bootstrap over groups of "
        "examples that belong together. A method is called better or worse only where the "
        "interval of the difference leaves out zero.",
    ]
    for name, heading in (
        ("headline", "All tasks together"),
        ("tasks", "Task by task"),
        ("seeds", "Router seeds"),
        ("costs", "Costs"),
        ("methods", "Methods"),
        ("data", "Data"),
        ("origin", "How it was made"),
    ):
        parts += [f"## {heading}", all_tables[name].markdown()]
    parts += ["## Make it again", f"```sh\n{_command(findings, layout)}\n```"]
    return "\n\n".join(parts) + "\n"


def _command(findings: Findings, layout: RunLayout) -> str:
    config = findings.config
    seeds = " ".join(map(str, config["router_seeds"]))
    modes = " --single-passes" if "prompt" in config["budget"]["routers"] else ""
    return (
        f"finlora benchmark {config['suite']} --name {layout.folder.name}-again --base {config['base']} "
        f"--quantization {config['quantization']} --tasks {' '.join(findings.tasks)} "
        f"--router-seeds {seeds} --seed {config['seed']}{modes}"
    )


def _read_json(layout: RunLayout, name: str) -> dict[str, Any]:
    path = layout.folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinLoraError(f"{path} cannot be read ({error}); run the benchmark to its end.") from error
