"""From tokens to text while they come: bytes, whole characters, strings that end an answer."""

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerBase

from ....experts.errors import FinLoraError
from ..requests import TokenEvent


class Vocabulary:
    """The base's tokens as llguidance knows them: bytes of each, and what grammars are compiled for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, size: int, end_ids: Sequence[int]):
        """Read a tokenizer, which takes about a second for 100,000 tokens.

        Args:
            tokenizer: The base's.
            size: Tokens that the base gives logits for, at least as many as the tokenizer has.
            end_ids: Tokens that end an answer.

        Raises:
            FinLoraError: If it is no fast tokenizer.
        """
        try:
            self.grammar_tokenizer: LLTokenizer = from_tokenizer(
                tokenizer,  # pyright: ignore[reportArgumentType]
                n_vocab=max(size, len(tokenizer)),
                eos_token=list(end_ids) or None,
            )
        except ValueError as error:
            raise FinLoraError(f"The base's tokenizer cannot be served ({error}).") from error
        self.size, self.end_ids = size, tuple(end_ids)
        self.special_ids = frozenset(tokenizer.all_special_ids)

    def bytes_of(self, token: int) -> bytes:
        """Bytes that a token stands for, those of its name for a special one."""
        # llguidance marks names of special tokens by the byte 255, and so has nothing for that byte itself.
        return self.grammar_tokenizer.decode_bytes([token]) or b"\xff"

    def text_of(self, token: int) -> str:
        """The same as text, with replacement characters where it is no whole character."""
        return self.bytes_of(token).decode("utf-8", "replace")


@dataclass(frozen=True)
class Piece:
    """A token with the text that became whole when it came."""

    text: str
    event: TokenEvent


class AnswerText:
    """The text of one answer.

    A piece is given out as soon as no string that ends the answer can begin in it; that string itself is
    never given out, and nothing after it.

    Attributes:
        stopped: Whether such a string came.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]):
        """Begin an answer that ends before any of `stops`."""
        self.stopped = False
        self._vocabulary, self._stops = vocabulary, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: deque[Piece] = deque()
        self._text = ""
        self._unfinished = 0

    def push(self, event: TokenEvent) -> list[Piece]:
        """Take a token and return what may be given out."""
        special = event.token_id in self._vocabulary.special_ids
        raw = b"" if special else self._vocabulary.bytes_of(event.token_id)
        piece = Piece(self._decoder.decode(raw), event)
        begun, _ = self._decoder.getstate()
        self._unfinished = self._unfinished + 1 if begun else 0
        return self._add(piece)

    def finish(self) -> list[Piece]:
        """Return what was held back; the answer is at its end."""
        rest = self._decoder.decode(b"", final=True)
        if rest:
            last = self._held.pop()
            self._held.append(Piece(last.text + rest, last.event))
        pieces = list(self._held)
        self._held.clear()
        return pieces

    def _add(self, piece: Piece) -> list[Piece]:
        self._held.append(piece)
        self._text += piece.text
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        self.stopped = bool(found)
        safe = min(found) if found else len(self._text) - self._could_begin()
        given = []
        # A token whose character is not whole yet waits for it.
        while len(self._held) > self._unfinished and len(self._held[0].text) <= safe:
            given.append(self._held.popleft())
            safe -= len(given[-1].text)
            self._text = self._text[len(given[-1].text) :]
        if self.stopped:
            if safe:
                given.append(Piece(self._text[:safe], self._held[0].event))
            self._held.clear()
        return given

    def _could_begin(self) -> int:
        """Length of the longest end of the text with which a stop string begins."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._text)), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stops):
                return length
        return 0
