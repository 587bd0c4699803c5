"""The sequences that a decoding loop of ours grows, in the terms of transformers' own loop.

Logits processors, stopping criteria and streamers are transformers'; each sequence is shown to them alone, as
sequences may grow by different numbers of tokens.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig


class Generated:
    """Prompts and the tokens after them.

    Attributes:
        lengths: Tokens of each sequence so far, padding at its left included.
        done: Whether each sequence has stopped.
    """

    def __init__(
        self,
        input_ids: Int[Tensor, "sequence token"],
        generation_config: GenerationConfig,
        logits_processor: Any,
        stopping_criteria: Any,
        streamer: Any,
    ):
        """Take what transformers hands to its own loop."""
        count, width = input_ids.shape
        self.max_length: int = generation_config.max_length  # pyright: ignore[reportAttributeAccessIssue]
        self.do_sample = bool(generation_config.do_sample)
        pad = getattr(generation_config, "_pad_token_tensor", None)
        self._ids = input_ids.new_full((count, max(self.max_length, width)), 0 if pad is None else int(pad))
        self._ids[:, :width] = input_ids
        self._process = logits_processor
        self._stops = stopping_criteria
        self._streamer = streamer
        self.lengths = [width] * count
        self.done = [False] * count

    def last_token(self, row: int) -> int:
        """The newest token of a sequence."""
        return int(self._ids[row, self.lengths[row] - 1])

    def tokens(self, row: int) -> list[int]:
        """All tokens of a sequence."""
        return self._ids[row, : self.lengths[row]].tolist()

    def scores(
        self, row: int, logits: Float[Tensor, " vocabulary"], ahead: list[int] | None = None
    ) -> Float[Tensor, " vocabulary"]:
        """Let the logits processors work on the logits after a sequence and the tokens `ahead` of it."""
        scores = logits.float()[None]
        if not self._process:
            return scores[0]
        seen = self._ids[row : row + 1, : self.lengths[row]]
        if ahead:
            seen = torch.cat([seen, seen.new_tensor([ahead])], dim=1)
        return self._process(seen, scores)[0]

    def probabilities(self, scores: Float[Tensor, " vocabulary"]) -> Float[Tensor, " vocabulary"]:
        """From what the next token is drawn; all on the best one where nothing is sampled."""
        if self.do_sample:
            return torch.softmax(scores, dim=-1)
        return torch.zeros_like(scores).index_fill_(0, scores.argmax(), 1.0)

    def draw(self, probabilities: Float[Tensor, " vocabulary"]) -> int:
        """Draw a token."""
        if self.do_sample:
            return int(torch.multinomial(probabilities, 1))
        return int(probabilities.argmax())

    def append(self, row: int, token: int, scores: Float[Tensor, " vocabulary"]) -> None:
        """Add a token to a sequence, and see whether it ends there."""
        self._ids[row, self.lengths[row]] = token
        self.lengths[row] += 1
        seen = self._ids[row : row + 1, : self.lengths[row]]
        if self._streamer is not None:
            self._streamer.put(seen[:, -1].cpu())
        self.done[row] = bool(self._stops(seen, scores[None])[0])

    def result(self) -> Int[Tensor, "sequence token"]:
        """All sequences, the shorter ones padded at their right."""
        if self._streamer is not None:
            self._streamer.end()
        return self._ids[:, : max(self.lengths)]
