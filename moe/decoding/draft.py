"""Decoding in mode draft: the answers of `exact`, with little more than one pass over the weights a token.

The scalings of a token are needed for its mixture pass and come from its scaling pass. To run the two passes
of neighbouring tokens as one batch, the next token must be proposed before the mixture has named it. Scalings
change little from one token to the next, so the mixture itself proposes it, one pass earlier, with the last
scalings that are known. Each pass therefore holds the known token with its own scalings, which decides; the
proposed one with the last scalings, which proposes the token after it; and the scaling pass of the proposed
one. A wrong proposal costs one more pass. Text that the answer copies adds further proposals.

Acceptance is that of speculative decoding (Leviathan et al. 2023, arXiv:2211.17192), so tokens have exactly
the distribution of `exact`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .both_passes import BothPasses, Passed, Tokens
from .generated import Generated
from .model import DecodableMixture
from .prompt_lookup import PromptLookup

COPIED_TOKENS = 3
"""Most tokens that are proposed at once because the text before has them."""


@dataclass
class DraftCounts:
    """How well the proposals were received.

    Attributes:
        tokens: Generated, without the first one of each sequence, which comes from the prompt.
        passes: Over the weights, after the prompt.
        proposed: Proposals that the mixture saw.
        accepted: Those it agreed with.
    """

    tokens: int = 0
    passes: int = 0
    proposed: int = 0
    accepted: int = 0


@dataclass
class _Ahead:
    """How far the scaling pass of one sequence is ahead of its known tokens.

    Attributes:
        lookup: Finds text to copy.
        base_end: Slot after the last token that went through the scaling pass.
        last: The last scalings that are known.
        scalings: Of the last known token and of the proposals after it; None if that token was not read yet.
        tokens: Proposals that went through the scaling pass.
        odds: From what each proposal was drawn; None if it was copied.
        next: The proposal after them, and from what it was drawn.
    """

    lookup: PromptLookup
    base_end: int
    last: Float[Tensor, "1 module expert"]
    scalings: Float[Tensor, "token module expert"] | None = None
    tokens: list[int] = field(default_factory=list)
    odds: list[Tensor | None] = field(default_factory=list)
    next: tuple[int, Tensor] | None = None


class Draft:
    """Sequences that grow with the help of proposals.

    Attributes:
        counts: How well the proposals were received.
    """

    def __init__(self, mixture: DecodableMixture, generated: Generated):
        """Begin before the prompts are read.

        Args:
            mixture: In mode draft.
            generated: Holds the prompts.
        """
        self.generated = generated
        self.passes = BothPasses(mixture, len(generated.lengths), generated.max_length)
        self.counts = DraftCounts()
        self.ahead: list[_Ahead] = []

    def decode(
        self, input_ids: Int[Tensor, "sequence token"], attention_mask: Int[Tensor, "sequence token"] | None
    ) -> Int[Tensor, "sequence grown"]:
        """Read the prompts and grow the sequences until all have stopped."""
        generated = self.generated
        logits = self.passes.read(input_ids, attention_mask)
        for row, last in enumerate(self.passes.last_scalings()):
            self.ahead.append(_Ahead(PromptLookup(generated.tokens(row)), generated.lengths[row], last))
            self._accept(row, logits[row][None], [], [])
        self.counts.tokens = 0
        while not all(generated.done):
            self._step()
        return generated.result()

    def _step(self) -> None:
        decided, proposed, scalings = [], [], []
        for row, ahead in enumerate(self.ahead):
            new = self._to_read(row, ahead)
            known = ahead.last[:0] if ahead.scalings is None else ahead.scalings
            last = ahead.last if ahead.scalings is None else ahead.scalings[-1:]
            tokens = [self.generated.last_token(row), *ahead.tokens][: len(known)]
            if self.generated.done[row]:
                new, tokens, known = [], [], known[:0]
            decided.append(Tokens([*tokens, *new], self.generated.lengths[row] - 1))
            proposed.append(Tokens(new, ahead.base_end))
            scalings.append(torch.cat([known, last.expand(len(new), -1, -1)]))
        passed = self.passes.run(decided, scalings, proposed)
        self.counts.passes += 1
        for row in range(len(self.ahead)):
            if not self.generated.done[row]:
                self._advance(row, list(proposed[row].ids), passed)

    def _to_read(self, row: int, ahead: _Ahead) -> list[int]:
        """Tokens for the next scaling pass: the last known one if unread, or a proposal; then copies."""
        room = self.generated.max_length - 1 - ahead.base_end
        if room < 1:
            return []
        if ahead.scalings is None:
            return [
                self.generated.last_token(row),
                *ahead.lookup.follow([], min(COPIED_TOKENS, room - 1)),
            ]
        assert ahead.next is not None
        token = ahead.next[0]
        return [token, *ahead.lookup.follow([*ahead.tokens, token], min(COPIED_TOKENS, room - 1))]

    def _advance(self, row: int, read: list[int], passed: Passed) -> None:
        """Judge the proposals of one sequence, and note how far its scaling pass is ahead now."""
        ahead = self.ahead[row]
        known = 0 if ahead.scalings is None else 1 + len(ahead.tokens)
        logits = passed.mixture_logits[row]
        if ahead.scalings is not None:
            proposed, odds = [*ahead.tokens], [*ahead.odds]
            if read and ahead.next is not None:
                proposed, odds = [*proposed, ahead.next[0]], [*odds, ahead.next[1]]
            before = self.generated.lengths[row]
            agreed = self._accept(row, logits[:known], proposed, odds)
            if not agreed:
                accepted = self.generated.lengths[row] - before
                self.ahead[row] = _Ahead(
                    ahead.lookup,
                    self.generated.lengths[row] - 1,
                    ahead.scalings[accepted - 1 : accepted],
                )
                return
        assert passed.scalings is not None
        self._propose(row, read, logits[known:], passed.scalings[row])

    def _propose(self, row: int, read: list[int], logits: Tensor, scalings: Tensor) -> None:
        """Keep the copies that the mixture, with its last scalings, would have proposed; propose one more."""
        ahead, kept = self.ahead[row], 0
        scores = self.generated.scores(row, logits[0])
        while kept + 1 < len(read) and read[kept + 1] == int(scores.argmax()):
            kept += 1
            scores = self.generated.scores(row, logits[kept], read[1 : kept + 1])
        odds = self.generated.probabilities(scores)
        ahead.base_end += kept + 1
        ahead.tokens, ahead.odds = read[1 : kept + 1], [None] * kept
        ahead.scalings = scalings[: kept + 1]
        ahead.next = self.generated.draw(odds), odds

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
            self.ahead[row].lookup.extend([token])
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
