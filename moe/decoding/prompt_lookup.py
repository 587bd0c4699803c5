"""Proposes tokens by looking at what followed the same tokens earlier in the text.

Saxena 2023, "Prompt Lookup Decoding". Answers that copy, such as tags and values of a filing, are often
proposed right.
"""

from collections.abc import Sequence

PATTERN = 2
"""Tokens that must agree."""


class PromptLookup:
    """The newest place of every run of `PATTERN` tokens in a growing text."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """Begin with a text."""
        self._tokens: list[int] = []
        self._end_of: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens at the end; the run that ends with the very last one has no follower yet."""
        for token in tokens:
            if len(self._tokens) >= PATTERN:
                self._end_of[tuple(self._tokens[-PATTERN:])] = len(self._tokens)
            self._tokens.append(token)

    def follow(self, ahead: Sequence[int], count: int) -> list[int]:
        """Return up to `count` tokens that may come after the text and the tokens `ahead` of it.

        Example:
            >>> PromptLookup([5, 6, 7, 8, 5]).follow([6], 2)
            [7, 8]
        """
        last = [*self._tokens[-PATTERN:], *ahead][-PATTERN:]
        end = self._end_of.get(tuple(last))
        return [] if end is None or count < 1 else self._tokens[end : end + count]
