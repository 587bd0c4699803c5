"""Decoding in mode base_draft: answers of `exact`, with close to one pass over the weights a token.

The scaling pass of a token also predicts the next one, as the base would. While the mixture pass of that
token runs, the proposal is already on its scaling pass, in the same batch. If the mixture agrees, the
scalings of the next token are known; if not, a scaling pass for the right token comes first. Text that the
answer copies adds further proposals. Acceptance is that of speculative decoding (Leviathan et al. 2023,
arXiv:2211.17192), so tokens have exactly the distribution of `exact`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .both_passes import BothPasses, Passed, Tokens
from .generated import Generated
from .prompt_lookup import PromptLookup

if TYPE_CHECKING:
    from .mixture import MixtureForCausalLM

COPIED_TOKENS = 3
"""Most tokens that are proposed at once because the text before has them."""


@dataclass
class DraftCounts:
    """How well the proposals were received.

    Attributes:
        tokens: Generated, without the first one of each sequence, which comes from the prompt.
        passes: Over the weights, of any kind, after the prompt.
        proposed: Proposals that the mixture saw.
        accepted: Those it agreed with.
    """

    tokens: int = 0
    passes: int = 0
    proposed: int = 0
    accepted: int = 0


@dataclass
class _Draft:
    """What the scaling pass of one sequence is ahead of its known tokens.

    Attributes:
        base_end: Slot after the last token that went through the scaling pass.
        tokens: Proposals among these tokens.
        odds: From what each proposal was drawn; None if it was copied.
        scalings: Of the last known token and of the proposals; None if the last known token was not read yet.
        logits: The base's, after all of them.
    """

    lookup: PromptLookup
    base_end: int
    tokens: list[int] = field(default_factory=list)
    odds: list[Tensor | None] = field(default_factory=list)
    scalings: Float[Tensor, "token module expert"] | None = None
    logits: Float[Tensor, " vocabulary"] | None = None


class BaseDraft:
    """Sequences that grow with the help of proposals.

    Attributes:
        counts: How well the proposals were received.
    """

    def __init__(self, mixture: "MixtureForCausalLM", generated: Generated):
        """Begin before the prompts are read.

        Args:
            mixture: In mode base_draft.
            generated: Holds the prompts.
        """
        self.generated = generated
        self.rows = range(len(generated.lengths))
        self.passes = BothPasses(mixture, len(self.rows), generated.max_length)
        self.drafts = [
            _Draft(PromptLookup(generated.tokens(row)), generated.lengths[row]) for row in self.rows
        ]
        self.counts = DraftCounts()

    def decode(
        self, input_ids: Int[Tensor, "sequence token"], attention_mask: Int[Tensor, "sequence token"] | None
    ) -> Int[Tensor, "sequence grown"]:
        """Read the prompts and grow the sequences until all have stopped."""
        for row, logits in enumerate(self.passes.read(input_ids, attention_mask)):
            self._accept(row, logits[None], [], [])
        self.counts.tokens = 0
        while not all(self.generated.done):
            self._step()
        return self.generated.result()

    def _step(self) -> None:
        for_mixture, for_base, odds = [], [], []
        for row, draft in enumerate(self.drafts):
            ready = draft.scalings is not None and not self.generated.done[row]
            known = [self.generated.last_token(row), *draft.tokens] if ready else []
            for_mixture.append(Tokens(known, self.generated.lengths[row] - 1))
            tokens, their_odds = ([], []) if self.generated.done[row] else self._next_for_base(row, draft)
            for_base.append(Tokens(tokens, draft.base_end))
            odds.append(their_odds)
        passed = self.passes.run(for_mixture, [draft.scalings for draft in self.drafts], for_base)
        self.counts.passes += 1
        for row in self.rows:
            if not self.generated.done[row]:
                self._advance(row, len(for_mixture[row].ids), list(for_base[row].ids), odds[row], passed)

    def _next_for_base(self, row: int, draft: _Draft) -> tuple[list[int], list[Tensor | None]]:
        """Tokens for the next scaling pass: what is known and not read, or a proposal; then copies."""
        room = self.generated.max_length - 1 - draft.base_end
        if room < 1:
            return [], []
        if draft.scalings is None:
            token, odds = self.generated.last_token(row), None
            copied = draft.lookup.follow([], min(COPIED_TOKENS, room - 1))
        else:
            assert draft.logits is not None
            scores = self.generated.scores(row, draft.logits, draft.tokens)
            odds = self.generated.probabilities(scores)
            token = self.generated.draw(odds)
            copied = draft.lookup.follow([*draft.tokens, token], min(COPIED_TOKENS, room - 1))
        return [token, *copied], [odds, *[None] * len(copied)]

    def _advance(
        self, row: int, mixture_count: int, read: list[int], odds: list[Tensor | None], passed: Passed
    ) -> None:
        """Judge the proposals of one sequence, and note how far its scaling pass is ahead now."""
        draft = self.drafts[row]
        if mixture_count:
            assert passed.mixture_logits is not None
            agreed = self._accept(
                row,
                passed.mixture_logits[row, :mixture_count],
                [*draft.tokens, *read[:1]],
                [*draft.odds, *odds[:1]],
            )
            if not agreed:
                draft.base_end, draft.tokens, draft.odds = self.generated.lengths[row] - 1, [], []
                draft.scalings = draft.logits = None
                return
        if read:
            assert passed.scalings is not None
            assert passed.base_logits is not None
            draft.base_end += len(read)
            draft.tokens, draft.odds = read[1:], odds[1:]
            draft.scalings = passed.scalings[row, : len(read)]
            draft.logits = passed.base_logits[row, len(read) - 1]

    def _accept(
        self,
        row: int,
        logits: Float[Tensor, "token vocabulary"],
        proposed: Sequence[int],
        odds: Sequence[Tensor | None],
    ) -> bool:
        """Add tokens as long as the mixture agrees with the proposals; return whether it did to the end."""
        generated = self.generated
        for index, one in enumerate(logits):
            scores = generated.scores(row, one)
            chances = generated.probabilities(scores)
            candidate = proposed[index] if index < len(proposed) else None
            token = (
                generated.draw(chances)
                if candidate is None
                else judge(generated, chances, candidate, odds[index])
            )
            generated.append(row, token, scores)
            self.drafts[row].lookup.extend([token])
            self.counts.tokens += 1
            self.counts.proposed += candidate is not None
            self.counts.accepted += token == candidate
            if token != candidate or generated.done[row]:
                return False
        return True


def judge(
    generated: Generated,
    chances: Float[Tensor, " vocabulary"],
    candidate: int,
    odds: Float[Tensor, " vocabulary"] | None,
) -> int:
    """Keep a proposal or replace it, so that the result has the wanted distribution.

    Leviathan et al. 2023, arXiv:2211.17192, section 2.3.

    Args:
        generated: Knows how tokens are drawn.
        chances: The wanted distribution.
        candidate: The proposal.
        odds: From what it was drawn; None if it was certain.
    """
    share = 1.0 if odds is None else float(odds[candidate])
    if float(chances[candidate]) >= share or (
        generated.do_sample and float(torch.rand(())) * share < float(chances[candidate])
    ):
        return candidate
    rest = chances.clone()
    if odds is None:
        rest[candidate] = 0.0
    else:
        rest = (rest - odds).clamp_(min=0.0)
    return generated.draw(rest)
