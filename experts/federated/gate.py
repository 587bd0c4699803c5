"""What must hold before the global adapter changes: of each update that can be seen, and of every candidate.

The manifest has checked names, shapes, types and finiteness of an update; here come its length, and whether
the candidate that updates make is finite and answers public examples no worse than the adapter in force.
A check that fails raises `GateError`; the server then writes its one sentence to the audit log and keeps
what it had.
"""

import hashlib
import math
from collections.abc import Callable

import numpy as np

from ..errors import FinLoraError
from .manifest import Update

Loss = Callable[[Update], float]
"""Mean loss of the adapter with these shared tensors on examples that are nobody's secret."""

TOLERANCE = 0.05
"""Rise of the public loss that is let pass, as a part of the loss before: one round is noisy."""


class GateError(FinLoraError):
    """An update or candidate that must not reach the global adapter. The message names no value of it."""


class Gate:
    """The checks of one run."""

    def __init__(self, *, max_norm: float, loss: Loss | None = None, tolerance: float = TOLERANCE) -> None:
        """Set the limits.

        Args:
            max_norm: Longest update, in L2 over all tensors.
            loss: Judges candidates; None skips that check.
            tolerance: Part of the loss before by which a candidate may be worse.
        """
        self.max_norm, self.loss, self.tolerance = max_norm, loss, tolerance
        self._last: tuple[bytes, float] | None = None

    def check_update(self, update: Update) -> None:
        """Check the length of one bank's update, or of a mean of updates.

        Raises:
            GateError: It is longer than the run allows.
        """
        squared = sum(float(np.square(values.astype(np.float64)).sum()) for values in update.values())
        # Written so that a norm that is not a number fails, too.
        if not math.sqrt(squared) <= self.max_norm:
            raise GateError(f"The update is longer than the norm of {self.max_norm:g} that the run allows.")

    def check_candidate(self, current: Update, candidate: Update) -> None:
        """Check tensors that would replace the global adapter.

        Args:
            current: The adapter in force.
            candidate: What would replace it.

        Raises:
            GateError: It has other names, shapes or types, is not finite, or answers public examples worse.
        """
        if set(candidate) != set(current):
            raise GateError("The candidate has other tensors than the global adapter.")
        for name, values in candidate.items():
            if values.shape != current[name].shape or values.dtype != current[name].dtype:
                raise GateError(f"The tensor {name} of the candidate has another shape or type than before.")
            if not np.isfinite(values).all():
                raise GateError(f"The tensor {name} of the candidate has values that are not finite.")
        if self.loss is None:
            return
        before, after = self._judged(current), self.loss(candidate)
        if not after <= before + self.tolerance * abs(before):
            raise GateError(
                f"The candidate's loss on public examples is over {self.tolerance:.0%} above that before."
            )
        self._last = _digest(candidate), after

    def _judged(self, tensors: Update) -> float:
        """The loss of the adapter in force: mostly that of the candidate of the round before."""
        digest = _digest(tensors)
        if self._last is None or self._last[0] != digest:
            assert self.loss is not None
            self._last = digest, self.loss(tensors)
        return self._last[1]


def _digest(tensors: Update) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.digest()
