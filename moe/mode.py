"""How a mixture comes by its scalings, and what that costs. Importing this file imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..experts.errors import FinLoraError

ModeName = Literal["exact", "draft", "trunk", "previous", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to run a mixture.

    All but `draft`, which answers as `exact` does, are models of their own, to be trained as they are
    used.
    """

    name: ModeName = "exact"
    """exact: X-LoRA as published, two passes a token. draft: the same answers; the mixture proposes tokens
    ahead, so that both passes run as one batch. trunk: the router reads the hidden state after some blocks of
    the only pass, and experts act in later blocks. previous: a token gets the scalings of the token before
    it, so both passes run as one batch. prompt: all tokens of the answer get the scalings of the prompt's
    last token; after the prompt there is one pass."""
    block: int | None = None
    """Only for trunk, and needed there: number of blocks before the router; 0 lets it read the embeddings."""

    def __post_init__(self) -> None:
        """Reject what no mixture could run as."""
        if (self.block is None) is (self.name == "trunk"):
            raise FinLoraError(
                f"The mode {self.name} "
                + (
                    "needs block, the number of blocks before the router."
                    if self.block is None
                    else "has no block."
                )
            )
        if self.block is not None and self.block < 0:
            raise FinLoraError(f"A mixture's block must be at least 0, got {self.block}.")

    @property
    def trained_as(self) -> "Mode":
        """The mode in which its router is trained."""
        return EXACT if self.name == "draft" else self

    @property
    def keeps_scaling_pass(self) -> bool:
        """Whether keys and values of the scaling pass are needed after the prompt."""
        return self.name in ("exact", "draft", "previous")

    @property
    def carries_scalings(self) -> bool:
        """Whether tokens get scalings that were computed for an earlier one."""
        return self.name in ("previous", "prompt")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Mode":
        """Build what `as_dict` described.

        Raises:
            FinLoraError: If there is no such mode.
        """
        if values["mode"] not in get_args(ModeName):
            raise FinLoraError(
                f"A mixture's mode must be one of {', '.join(get_args(ModeName))}, got {values['mode']!r}."
            )
        return cls(name=values["mode"], block=values.get("block"))

    def as_dict(self) -> dict[str, Any]:
        """Return what `mixture.json` says of the mode."""
        return {"mode": self.name} | ({} if self.block is None else {"block": self.block})


EXACT = Mode()
