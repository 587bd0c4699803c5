"""One prompt through a mixture: its answer, the router's scalings, and the answer under other scalings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...experts.answering import answer
from ...experts.errors import FinLoraError
from ...experts.tasks import Example
from ...moe.mixture import MixtureForCausalLM
from ...moe.routing import ConstantRouter
from .read_scalings import TokenScalings, read_scalings


@dataclass(frozen=True)
class Answered:
    """What a mixture answered to a prompt, and the scalings of all tokens of both."""

    text: str
    read: TokenScalings

    @property
    def mean_scalings(self) -> list[float]:
        """Mean scaling of each expert over the answer's tokens and all layers."""
        return self.read.scalings[self.read.predicts_answer].mean(dim=(0, 1)).tolist()


def answer_prompt(mixture: MixtureForCausalLM, prompt: str, *, max_new_tokens: int = 64) -> Answered:
    """Answer a prompt greedily and read prompt and answer again for their scalings.

    Raises:
        FinLoraError: The prompt is empty or, with its answer, too long for the base.
    """
    text = _answer(mixture, prompt, max_new_tokens)
    (read,) = read_scalings(mixture, [Example(prompt, text)])
    return Answered(text, read)


def answer_with_scalings(
    mixture: MixtureForCausalLM, prompt: str, weights: Mapping[str, float], *, max_new_tokens: int = 64
) -> str:
    """Answer a prompt greedily with the same scalings for all tokens and layers, whatever the router says.

    Args:
        mixture: Gives base and experts.
        prompt: The question.
        weights: Scalings by the names of experts; experts that are not named get 0.
        max_new_tokens: Most tokens of the answer.

    Raises:
        FinLoraError: An expert is unknown, or the prompt is empty or too long.
    """
    names = mixture.bank.expert_names
    if unknown := sorted(weights.keys() - set(names)):
        raise FinLoraError(f"There is no expert {unknown[0]}; the mixture has {', '.join(names)}.")
    constant = ConstantRouter([float(weights.get(name, 0.0)) for name in names])
    steered = MixtureForCausalLM.build(mixture.origin, mixture.bank, constant)
    return _answer(steered, prompt, max_new_tokens)


def _answer(mixture: MixtureForCausalLM, prompt: str, max_new_tokens: int) -> str:
    if not prompt.strip():
        raise FinLoraError("The prompt is empty; give a question.")
    answers = answer(mixture, mixture.origin.tokenizer, [prompt], max_new_tokens=max_new_tokens)
    if answers.too_long:
        raise FinLoraError(
            f"The prompt and {max_new_tokens} tokens of an answer do not fit the base "
            f"{mixture.origin.name}; give a shorter one."
        )
    return answers.texts[0]
