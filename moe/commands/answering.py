"""Commands that let a base, an expert or a mixture answer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ...experts.errors import FinLoraError

if TYPE_CHECKING:
    from torch import nn

    from ...experts.base_model import Base

Quantization = Literal["none", "int8", "nf4"]


def evaluate(
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")],
    /,
    task: str,
    examples: Path,
    out: Path,
    base: str | None = None,
    quantization: Quantization | None = None,
    batch_size: int = 32,
) -> None:
    """Score a base, an expert or a mixture on a file of examples.

    The output file has one record an example (prediction, target, score) and a summary as its last line.

    Args:
        model: The word `base`, the folder of an expert, or the folder of a mixture.
        task: Name of the task, which decides how answers are scored; `finlora tasks` lists them.
        examples: JSONL file with `context` and `target`, optionally `group`.
        out: File to write; it must not exist.
        base: Base to run on: embedded, a local folder or a hub id. By default the one that the model names.
        quantization: How to store the base; by default as the model says, else nf4.
        batch_size: Most prompts answered at once; lower it if memory runs out.
    """
    from tqdm import tqdm

    from ...benchmarks import evaluate as evaluation
    from ...experts.tasks import read_examples

    with tqdm(total=len(read_examples(examples)), desc=task, unit="example") as bar:
        summary = evaluation.evaluate(
            model,
            task=task,
            examples=examples,
            out=out,
            base=base,
            quantization=quantization,
            batch_size=batch_size,
            progress=bar.update,
        )
    print(f"{task}: {summary.score:.1f} of 100 on {summary.n:,} examples ({summary.seconds:.0f} s)")
    if summary.too_long:
        print(f"{summary.too_long:,} prompts did not fit the base, were not cut, and count as wrong")
    print(f"written to {out}")


def generate(
    mixture: Annotated[str, tyro.conf.arg(metavar="MIXTURE")],
    prompt: Annotated[str, tyro.conf.arg(metavar="PROMPT")],
    /,
    max_new_tokens: int = 128,
    quantization: Quantization | None = None,
    draft: bool = False,
    show_experts: bool = False,
) -> None:
    """Answer one prompt.

    Args:
        mixture: Folder of a mixture, such as runs/demo/mixture; the folder of an expert and the word `base`
            work too.
        prompt: The question in the form the experts were trained on; `-` reads it from the standard input.
        max_new_tokens: Most tokens of the answer.
        quantization: How to store the base; by default as the mixture says.
        draft: Let the mixture propose tokens ahead (mode draft): the same answer in fewer passes.
        show_experts: Also print, on the standard error, how much of each expert the mixture used on average.
    """
    from ...benchmarks.models import identify, open_model
    from ...experts.answering import answer
    from ...experts.base_model import load_base

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise FinLoraError("The prompt is empty; give a question, or - to read it from the standard input.")
    source = identify(mixture)
    base = load_base(source.base, quantization or source.quantization)
    with open_model(source, base) as model:
        if draft:
            model = _drafting(model)
        answers = answer(model, base.tokenizer, [text], max_new_tokens=max_new_tokens)
        if answers.too_long:
            limit = base.model.config.max_position_embeddings
            raise FinLoraError(
                f"The prompt does not fit: prompt and {max_new_tokens} new tokens must stay within the "
                f"{limit} tokens of the base {base.name}; shorten it or lower --max-new-tokens."
            )
        print(answers.texts[0])
        if show_experts:
            _print_experts(model, base, text, answers.texts[0])


def _drafting(model: "nn.Module") -> "nn.Module":
    from ..mixture import MixtureForCausalLM
    from ..mode import Mode

    if not isinstance(model, MixtureForCausalLM):
        raise FinLoraError("Only a mixture proposes tokens ahead; leave out --draft.")
    return model.in_mode(Mode(name="draft"))


def _print_experts(model: "nn.Module", base: "Base", prompt: str, answer: str) -> None:
    from ...benchmarks.routing import mean_scalings
    from ...experts.tasks import Example
    from ..mixture import MixtureForCausalLM

    if not isinstance(model, MixtureForCausalLM):
        raise FinLoraError("Only a mixture has experts to show; leave out --show-experts.")
    model.keeps_scalings = True
    weights = mean_scalings(model, base.tokenizer, [Example(prompt, answer)])["answer"]
    for name, weight in zip(model.bank.expert_names, weights, strict=True):
        print(f"{weight:6.1%}  {name}", file=sys.stderr)
