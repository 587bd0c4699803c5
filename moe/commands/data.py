"""Commands about tasks, files of examples, and scores of answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ...experts.errors import FinLoraError

if TYPE_CHECKING:
    from ...experts.tasks import Task

_SHOWN_CHARACTERS = 400
"""Of the beginning and the end of a long prompt."""


def tasks(name: Annotated[str | None, tyro.conf.arg(metavar="TASK")] = None, /) -> None:
    """List the tasks, or show the data card of one and three of its examples.

    Args:
        name: Task to show; without one, all are listed with what is asked and the suites that contain them.
    """
    from ...experts.tasks import TASKS, get_task
    from ...experts.tasks.suites import SUITES

    if name is not None:
        _show(get_task(name))
        return
    width = max(map(len, TASKS)) + 2
    for key, task in TASKS.items():
        suites = ", ".join(suite.name for suite in SUITES.values() if key in suite.tasks)
        print(f"{key:<{width}}{task.title} ({suites or 'your own data only'})")
        print(f"{'':<{width}}source: {task.source}; licence: {task.licence}")


def _show(task: "Task") -> None:
    from ...experts.tasks.suites import some_examples

    print(f"{task.name}, version {task.version}: {task.title}")
    print(f"prompt: {task.prompt}")
    print(f"answer: {task.answer_form}; at most {task.max_new_tokens} tokens")
    metrics = ", ".join((task.scorer.__name__, *task.metrics))
    print(f"scores: {metrics}; FinLoRA's: {task.finlora_metric}")
    print(f"source: {task.source}")
    print(f"licence: {task.licence}")
    for line in task.card.lines():
        print(line)
    origin, examples = some_examples(task.name, 3)
    print(f"examples: {origin}")
    for example in examples:
        print(f"---\n{_shortened(example.context)}\n=> {example.target}")


def _shortened(text: str) -> str:
    if len(text) <= 2 * _SHOWN_CHARACTERS:
        return text
    left_out = len(text) - 2 * _SHOWN_CHARACTERS
    return f"{text[:_SHOWN_CHARACTERS]} […{left_out:,} characters…] {text[-_SHOWN_CHARACTERS:]}"


def data_build(
    task: Annotated[str, tyro.conf.arg(metavar="TASK")],
    /,
    out: Path,
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="SOURCE")] = None,
    ticker: str | None = None,
    cik: str | None = None,
    form: str = "10-K",
    year: int | None = None,
    labels: Literal["corrected", "published"] = "corrected",
    split: str | None = None,
    filings: Path | None = None,
    style: Literal["plain", "full", "finlora"] = "full",
) -> None:
    """Turn a published file, a hub data set or a filing into examples of a task.

    The result is JSONL, one example a line, with `context` (the prompt), `target` (the answer) and `group`
    (examples that belong together). `train-expert`, `evaluate` and `data check` read it.

    Args:
        task: Name of the task, as `finlora tasks` lists them.
        out: File to write; it must not exist.
        source: A data set's own file, FinLoRA's JSONL file, a hub id, or the folder of an XBRL filing.
        ticker: In place of a source, the company whose filing is fetched from the SEC's EDGAR and kept beside
            the examples, such as AAPL.
        cik: The same by the company's number at the SEC, such as 320193.
        form: Kind of the fetched filing.
        year: Year in which the period of the fetched filing ends.
        labels: Whether known faults are corrected, or labels and prompts stay as FinLoRA published them.
        split: Split of a hub data set (test by default), or train or test of the formulas spreadsheet.
        filings: Folder of the filings that FinLoRA's tables of XBRL questions are about.
        style: How a filing's facts stand in prompts: tag and value; also period, unit and decimals; or a
            whole context as FinLoRA writes it.
    """
    from ...experts.tasks import write_examples
    from ...experts.tasks.sources import build_task

    if out.exists():
        raise FinLoraError(f"{out} exists and is never overwritten; choose another file.")
    if [source, ticker, cik].count(None) != 2:
        raise FinLoraError("Give one source of examples: --from, --ticker or --cik.")
    examples = build_task(
        task,
        source or _fetched(ticker or cik or "", form, year, out.parent),
        labels=labels,
        split=split,
        filings=filings,
        style=style,
        report=print,
    )
    write_examples(out, examples)
    print(f"{len(examples):,} examples of {task} written to {out}")


def _fetched(company: str, form: str, year: int | None, folder: Path) -> Path:
    from ...experts.filings.edgar import fetch_filing

    if year is None:
        raise FinLoraError("A filing is fetched for a year; give --year, such as --year 2024.")
    kept = folder / f"{company}-{form.replace('/', '-')}-{year}"
    return kept if kept.is_dir() else fetch_filing(company, form, year, kept)


def score(
    evaluation: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    /,
    bertscore: str | None = None,
) -> None:
    """Score the answers of `evaluate` again, with FinLoRA's scorer beside the right one.

    FinLoRA's score depends on an arbitrary order of its labels, so it is shown as lowest to highest over all
    orders.

    Args:
        evaluation: File that `evaluate` wrote.
        bertscore: Folder or hub id of the encoder for BERTScore; FinLoRA's is ProsusAI/finbert.
    """
    from ...benchmarks.predictions import read_predictions
    from ...experts.tasks import get_task
    from ...experts.tasks.side_by_side import side_by_side

    predictions, summary = read_predictions(evaluation)
    # A prompt that did not fit was not answered, which is wrong under every scorer.
    answers = ["" if one.too_long else one.prediction for one in predictions]
    targets = [one.target for one in predictions]
    print(f"{summary.task}: {len(targets):,} answers of {summary.model}")
    for measured in side_by_side(get_task(summary.task), answers, targets, encoder=bertscore):
        upper = f" to {measured.highest:.1f}" if measured.highest > measured.lowest else ""
        print(f"{measured.name}: {measured.lowest:.1f}{upper}")


def data_check(
    files: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE…")],
    /,
    task: str | None = None,
    base: str = "embedded",
) -> None:
    """Check files of examples before training or evaluating on them.

    Ends in an error that names file and line if a file is malformed; otherwise counts what deserves a look,
    such as prompts that are too long for the base, that repeat, or that several files (train and test, say)
    share: exactly, but for their numbers, or nearly.

    Args:
        files: JSONL files with `context` and `target`, optionally `group`.
        task: Name of the task, to check that its limit on the length of answers suffices.
        base: Base whose tokens are counted: embedded, a local folder or a hub id.
    """
    from ...experts.base_model import load_config, load_tokenizer
    from ...experts.data_check import check_examples
    from ...experts.leaks import leak_report
    from ...experts.tasks import get_task, read_examples

    if not files:
        raise FinLoraError("No file was named; give at least one JSONL file with context and target.")
    known_task = None if task is None else get_task(task)
    splits = {str(path): read_examples(path) for path in files}
    tokenizer, config = load_tokenizer(base), load_config(base)
    for name, examples in splits.items():
        found = check_examples(examples, tokenizer, config, known_task)
        print(f"{name}: {found.examples:,} examples in {found.groups:,} groups")
        print(f"tokens with base {base}: median {found.median_tokens:,.0f}, longest {found.longest_tokens:,}")
        print(f"too long for the base: {found.too_long:,}")
        print(f"prompts with different answers: {found.contradictions:,}")
        if known_task is not None:
            limit = known_task.max_new_tokens
            print(f"answers longer than the {limit} tokens of {task}: {found.unreachable:,}")
    print(leak_report(splits).text())


def data_export(
    out: Path,
    examples: dict[str, Path],
) -> None:
    """Write tasks for lm-evaluation-harness, so that others can ask them with the tool they know.

    `python -m finlora.benchmarks.harness_model run --model finlora --model_args pretrained=MODEL
    --include_path OUT --tasks finlora` then asks a base, an expert or a mixture.

    Args:
        out: Folder to write; it must be empty or absent.
        examples: Task and JSONL file, for each task: xbrl_value value.jsonl finer finer.jsonl.
    """
    from ...experts.tasks import read_examples
    from ...experts.tasks.harness import export_tasks

    names = export_tasks(out, {task: read_examples(path) for task, path in examples.items()})
    print(f"{', '.join(names)} written to {out}")
