"""Answers the examples of one task with one model, scores the answers, and keeps every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..experts.answering import Answers, answer
from ..experts.base_model import Base, load_base
from ..experts.errors import FinLoraError
from ..experts.provenance import examples_sha256, source_commit
from ..experts.tasks import Example, Task, get_task, read_examples
from .measure import Cost, measured
from .models import identify, open_model
from .predictions import Prediction, Summary, write_predictions


def evaluate(
    model: str,
    *,
    task: str,
    examples: Path,
    out: Path,
    base: str | None = None,
    quantization: str | None = None,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Summary:
    """Evaluate a base, an expert or a mixture on a file of examples.

    Args:
        model: `base`, an expert folder, or a mixture folder.
        task: Name of the task, which decides scorer and length of answers.
        examples: JSONL with `context`, `target` and optionally `group`.
        out: File to write: one record an example (prediction, target, score), then a summary line.
        base: Base to run on; by default the one that the folder names, and the embedded one for `base`.
        quantization: How to store the base; by default as the folder says, else `nf4`.
        batch_size: Most prompts answered at once.
        progress: Called after each batch with its number of prompts.

    Raises:
        FinLoraError: `out` exists, the task is unknown, the examples are malformed, or the model cannot be
            used.
    """
    if out.exists():
        raise FinLoraError(f"{out} exists and is never overwritten; choose another file for the evaluation.")
    known_task = get_task(task)
    asked = read_examples(examples)
    source = identify(model)
    loaded = load_base(base or source.base, quantization or source.quantization)
    with open_model(source, loaded) as ready:
        predictions, summary = evaluate_model(
            ready, loaded, known_task, asked, label=model, batch_size=batch_size, progress=progress
        )
    write_predictions(out, predictions, summary)
    return summary


def evaluate_model(
    model: torch.nn.Module,
    base: Base,
    task: Task,
    examples: Sequence[Example],
    *,
    label: str,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
    prompts: Sequence[str] | None = None,
) -> tuple[list[Prediction], Summary]:
    """Answer and score examples with a model that stands on `base`.

    Args:
        model: Anything with `generate`.
        base: The base below it, for the tokenizer and the record.
        task: Gives scorer and length of answers.
        examples: What is asked.
        label: Name of the model in the summary.
        batch_size: Most prompts answered at once.
        progress: Called after each batch with its number of prompts.
        prompts: What the model reads instead of the examples' contexts, one for each.
    """
    with measured() as cost:
        answers = answer(
            model,
            base.tokenizer,
            [example.context for example in examples] if prompts is None else prompts,
            max_new_tokens=task.max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
    return _evaluation(model, base, task, examples, answers, cost, label=label)


def evaluate_together(
    model: torch.nn.Module,
    base: Base,
    examples_by_task: Sequence[tuple[Task, Sequence[Example]]],
    *,
    label: str,
    batch_size: int = 32,
) -> dict[str, tuple[list[Prediction], Summary]]:
    """Answer the examples of several tasks in batches in which they are mixed.

    Args:
        model: Anything with `generate`.
        base: The base below it.
        examples_by_task: What is asked. An answer is as long as its task allows, whatever shares its batch.
        label: Name of the model in the summaries.
        batch_size: Most prompts answered at once.

    Returns:
        What `evaluate_model` returns, by task; time is shared out by number of examples.
    """
    rows = [(task, example) for task, examples in examples_by_task for example in examples]
    with measured() as cost:
        answers = answer(
            model,
            base.tokenizer,
            [example.context for _, example in rows],
            max_new_tokens=[task.max_new_tokens for task, _ in rows],
            batch_size=batch_size,
        )
    evaluations, start = {}, 0
    for task, examples in examples_by_task:
        end = start + len(examples)
        own = Answers(
            answers.texts[start:end], [index - start for index in answers.too_long if start <= index < end]
        )
        share = replace(cost, seconds=cost.seconds * len(examples) / len(rows))
        evaluations[task.name] = _evaluation(model, base, task, examples, own, share, label=label)
        start = end
    return evaluations


def _evaluation(
    model: torch.nn.Module,
    base: Base,
    task: Task,
    examples: Sequence[Example],
    answers: Answers,
    cost: Cost,
    *,
    label: str,
) -> tuple[list[Prediction], Summary]:
    predictions = _score(answers, task, examples)
    tokens = count_answer_tokens(base.tokenizer, predictions)
    summary = Summary(
        task=task.name,
        task_version=task.version,
        model=label,
        base=base.name,
        base_revision=base.revision,
        quantization=base.quantization,
        score=100 * sum(one.score for one in predictions) / len(predictions),
        n=len(predictions),
        too_long=len(answers.too_long),
        seconds=cost.seconds,
        peak_bytes=cost.peak_bytes,
        answer_tokens=tokens,
        tokens_per_second=tokens / cost.seconds,
        parameters=count_parameters(model),
        examples_sha256=examples_sha256(examples),
        commit=source_commit(),
    )
    return predictions, summary


def _score(answers: Answers, task: Task, examples: Sequence[Example]) -> list[Prediction]:
    too_long = set(answers.too_long)
    return [
        Prediction(
            prediction=text,
            target=example.target,
            score=0.0 if index in too_long else float(task.scorer(text, example.target)),
            group=example.group,
            too_long=index in too_long,
        )
        for index, (text, example) in enumerate(zip(answers.texts, examples, strict=True))
    ]


def count_answer_tokens(tokenizer: PreTrainedTokenizerBase, predictions: Sequence[Prediction]) -> int:
    """Number of tokens of all answers, counting one end of sequence for each that was given."""
    return sum(
        len(tokenizer(one.prediction, add_special_tokens=False)["input_ids"]) + 1
        for one in predictions
        if not one.too_long
    )


def count_parameters(model: torch.nn.Module) -> int:
    """Number of parameters, each once; a 4-bit weight counts what it stands for, not its packed bytes."""
    return sum(
        math.prod((getattr(parameter, "quant_state", None) or parameter).shape)
        for parameter in model.parameters()
    )
