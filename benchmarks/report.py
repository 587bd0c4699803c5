"""The report of a run: one self-contained HTML page, its tables in Markdown, and a picture of the headline.

Everything is made from files in the run's folder, so a report can be made again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..experts.atomic_write import write_text
from ..experts.tasks.suites import get_suite
from .findings import headline
from .layout import RunLayout
from .page import plot_html, render_page
from .picture import dot_plot_svg
from .protocols import PROTOCOLS
from .report_data import Findings
from .report_parts import MACRO_AXIS, make_figures, make_tables, protocol_figures, protocol_tables
from .report_why import reasons
from .results import IN_DISTRIBUTION
from .statistics import MACRO
from .tables import Table

TEMPLATE = "report.html.jinja"


def build_report(layout: RunLayout) -> None:
    """Write `report.html`, `report.md` and `results.svg` of a run that is complete.

    Raises:
        FinLoraError: A file of the run is missing or malformed.
    """
    findings = Findings.read(layout)
    sentences = headline(findings.index, findings.methods, findings.tasks, findings.protocols)
    texts = (sentences, make_tables(findings), protocol_tables(findings))
    title = f"FinLoRA cross-task benchmark: {get_suite(findings.config['suite']).title.lower()}"
    write_text(
        layout.picture,
        dot_plot_svg(
            findings.dots(MACRO, findings.shown), title="Mean score over all tasks", x_title=MACRO_AXIS
        ),
    )
    write_text(layout.report_markdown, _markdown(title, *texts, findings, layout))
    write_text(layout.report_html, _html(title, *texts, findings, layout))


def _html(
    title: str,
    sentences: Sequence[str],
    all_tables: Mapping[str, Table],
    by_protocol: Mapping[str, tuple[Table, Table]],
    findings: Findings,
    layout: RunLayout,
) -> str:
    return render_page(
        __package__,
        TEMPLATE,
        title=title,
        sentences=sentences,
        tables=all_tables,
        plots={name: plot_html(figure, name) for name, figure in make_figures(findings).items()},
        protocols=[
            (PROTOCOLS[name], plot_html(figure, f"protocol-{name}"), *by_protocol[name])
            for name, figure in protocol_figures(findings).items()
        ],
        reasons=reasons(layout, findings),
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
    by_protocol: Mapping[str, tuple[Table, Table]],
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
        ("differences", "Differences task by task"),
        ("seeds", "Router seeds"),
        ("foreign", "Text that belongs to no task"),
        ("costs", "Costs"),
        ("published", "FinLoRA's published scores"),
        ("methods", "Methods"),
        ("data", "Data"),
        ("origin", "How it was made"),
    ):
        if name in all_tables:
            parts += [f"## {heading}", all_tables[name].markdown()]
    for name, (overall, by_task) in by_protocol.items():
        protocol = PROTOCOLS[name]
        parts += [
            f"## {protocol.title}",
            protocol.explanation,
            overall.markdown(),
            by_task.markdown(),
        ]
    parts += ["## Make it again", f"```sh\n{_command(findings, layout)}\n```"]
    return "\n\n".join(parts) + "\n"


def _command(findings: Findings, layout: RunLayout) -> str:
    config = findings.config
    seeds = " ".join(map(str, config["router_seeds"]))
    compare = config.get("compare", "core")
    further = "" if compare == "core" else f" --compare {compare}"
    budget = config["budget"]
    if compare != "everything":
        for name, standard in (("further", []), ("protocols", [IN_DISTRIBUTION])):
            if chosen := [one for one in budget.get(name, ()) if one not in standard]:
                further += f" --{name} {' '.join(chosen)}"
    if more := config.get("more_expert_seeds"):
        further += f" --more-expert-seeds {' '.join(map(str, more))}"
    return (
        f"finlora benchmark {config['suite']} --name {layout.folder.name}-again --base {config['base']} "
        f"--quantization {config['quantization']} --tasks {' '.join(findings.tasks)} "
        f"--router-seeds {seeds} --seed {config['seed']}{further}"
    )
