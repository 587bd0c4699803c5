"""What a bank may send in one run: the names and shapes of the shared tensors, and nothing else.

Flower 1.41 averages a NaN into the model for good, broadcasts a tensor of another shape without a word, and
ends the run at one tensor too many. So every update is checked against the run's manifest before anything is
done with it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from ..errors import FinLoraError

Update = Mapping[str, np.ndarray]
"""Name of a shared tensor -> float32 values: a difference to the global adapter, or its absolute values."""

DTYPE = "float32"


class UpdateError(FinLoraError):
    """An update that the manifest does not allow. Its message names tensors, never their values."""


@dataclass(frozen=True)
class Manifest:
    """Names and shapes of the tensors that the banks of one run share, in the order of the flat vector."""

    run_id: str
    """Names the run; a message of another run is refused."""
    names: tuple[str, ...]
    """Shared tensors, sorted."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each of `names`."""
    dtype: str = DTYPE
    """Type of all values."""

    def __post_init__(self) -> None:
        """Reject a manifest that no update could follow."""
        if len(self.names) != len(self.shapes) or list(self.names) != sorted(set(self.names)):
            raise FinLoraError("A manifest lists each shared tensor once, sorted by name, with its shape.")
        if self.dtype != DTYPE:
            raise FinLoraError(f"Updates are {DTYPE}, not {self.dtype}.")

    @classmethod
    def of(cls, run_id: str, tensors: Update) -> "Manifest":
        """Return the manifest that tensors such as the initial adapter's follow."""
        names = tuple(sorted(tensors))
        return cls(run_id, names, tuple(tuple(map(int, tensors[name].shape)) for name in names))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Number of values of a whole update."""
        return sum(self.sizes)

    @property
    def sha256(self) -> str:
        """Hash of names, shapes, type and run, to compare manifests by."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what `from_record` reads back."""
        return {
            "run_id": self.run_id,
            "names": list(self.names),
            "shapes": [list(shape) for shape in self.shapes],
            "dtype": self.dtype,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Manifest":
        """Return the manifest of a record as `record` makes it."""
        shapes = tuple(tuple(int(size) for size in shape) for shape in record["shapes"])
        return cls(str(record["run_id"]), tuple(record["names"]), shapes, str(record["dtype"]))

    def check(self, update: Update) -> None:
        """Check an update that came from outside.

        Raises:
            UpdateError: A tensor is missing, is not in the manifest, or has another shape, another type or a
                value that is not finite.
        """
        missing = [name for name in self.names if name not in update]
        if missing:
            raise UpdateError(
                f"The update lacks {len(missing)} of {len(self.names)} tensors, such as {missing[0]}."
            )
        # Names that a stranger chose stay out of the message: it goes to a log.
        extra = len(set(update) - set(self.names))
        if extra:
            raise UpdateError(f"The update has {extra} tensors that the run's manifest does not list.")
        for name, shape in zip(self.names, self.shapes, strict=True):
            values = update[name]
            if values.dtype != np.float32:
                raise UpdateError(f"The tensor {name} of the update is not of type {self.dtype}.")
            if values.shape != shape:
                raise UpdateError(f"The tensor {name} of the update has shape {values.shape}, not {shape}.")
            if not np.isfinite(values).all():
                raise UpdateError(f"The tensor {name} of the update has values that are not finite.")

    def flatten(self, update: Update) -> Float32[np.ndarray, " value"]:
        """Return the values of a checked update as one vector, tensor by tensor in the order of `names`."""
        if not self.names:
            return np.zeros(0, np.float32)
        return np.concatenate([update[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Float32[np.ndarray, " value"]) -> dict[str, np.ndarray]:
        """Return the update whose `flatten` is this vector.

        Raises:
            UpdateError: The vector has another length than the manifest's updates.
        """
        if vector.shape != (self.size,):
            raise UpdateError(f"A vector of {vector.size} values is no update of {self.size} values.")
        parts = np.split(vector, np.cumsum(self.sizes)[:-1]) if self.names else []
        shaped = zip(self.names, self.shapes, parts, strict=True)
        return {name: part.reshape(shape) for name, shape, part in shaped}
