"""Settings of a federated run: what all parties see, and what a bank alone decides.

Importing this file imports neither torch nor Flower, so that `--help` answers at once.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import FinLoraError
from ..settings import ATTENTION_AND_MLP

AdapterKind = Literal["ffa", "fedit", "product", "alternating", "core", "fedsa"]
"""Which part of the adapter banks train and share; see `adapters.py`."""

Combination = Literal["mean", "median", "trimmed_mean", "krum"]
"""How the server combines updates that it can see."""


@dataclass(frozen=True, kw_only=True)
class FederatedSettings:
    """What one run trains and how; the server sends it to all banks, so it holds nothing secret."""

    adapter: AdapterKind = "ffa"
    """ffa: A from a public seed, B trained, averages exactly. fedit: A and B averaged apart. product: mean of
    the products B A, cut back to the rank. alternating: B in odd rounds, A in even ones. core: only an r x r
    matrix between fixed A and B. fedsa: A shared, B stays in the bank."""
    rank: int = 8
    """Inner width of the update of each adapted layer."""
    alpha: int | float = 16
    """Scale of the update: it counts alpha / rank times."""
    targets: tuple[str, ...] = ATTENTION_AND_MLP
    """Last name of each linear layer that gets an update."""
    rounds: int = 15
    """Times that banks train and the server combines."""
    local_steps: int = 10
    """Optimizer steps of one bank in one round."""
    batch_size: int = 16
    """Examples of one step; with privacy the expected number, since each example is drawn on its own."""
    learning_rate: float = 2.5e-3
    """Step size of AdamW in the first round; it falls to a tenth along a cosine."""
    server_optimizer: Literal["none", "adam"] = "none"
    """none: the mean of the banks' updates is added. adam: it is a gradient for Adam on the server, and banks
    take plain gradient steps; then local_steps is best 1."""
    server_learning_rate: float = 5e-3
    """Step size of Adam on the server in the first round; it falls to a tenth along a cosine."""
    seed: int = 0
    """Determines the frozen tensors, initial weights and, without privacy, the order of examples."""
    epsilon: float = math.inf
    """Privacy that each bank's records get over the whole run; inf trains without noise."""
    delta: float = 1e-5
    """Chance with which the bound on epsilon may fail."""
    clip: float = 1.0
    """Longest gradient of one record with privacy, of a batch without."""
    combination: Combination = "mean"
    """How the server combines updates; all but mean need to see each bank's, so no secure aggregation."""
    secure_aggregation: bool = False
    """Whether the server sees the sum of updates only."""
    proofs: bool = False
    """Whether each bank proves that its update is bounded; needs secure aggregation."""
    banks: int = 2
    """Banks that the server waits for before the first round."""
    min_banks: int = 2
    """Banks that a later round needs; with fewer the adapter stays as it was."""
    timeout: float = 600.0
    """Seconds that the server waits for the banks' answers of one round."""
    max_norm: float = 10.0
    """Longest update of one bank that the server accepts, in L2."""

    def __post_init__(self) -> None:
        """Reject settings that no run could follow."""
        for name in ("rank", "rounds", "local_steps", "batch_size", "banks", "min_banks"):
            if getattr(self, name) < 1:
                raise FinLoraError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "server_learning_rate", "epsilon", "clip", "timeout", "max_norm"):
            if not getattr(self, name) > 0:
                raise FinLoraError(f"{name} must be above 0, got {getattr(self, name)}.")
        if not 0 < self.delta < 1:
            raise FinLoraError(f"delta must lie between 0 and 1, got {self.delta}.")
        if self.proofs and not self.secure_aggregation:
            raise FinLoraError("Proofs bind to masked updates; switch secure aggregation on too.")
        if self.proofs and self.adapter == "alternating":
            raise FinLoraError(
                "The adapter alternating shares updates of two lengths, and a proof is about one; choose "
                "another adapter, or switch proofs off."
            )
        if self.secure_aggregation and self.combination != "mean":
            raise FinLoraError(
                f"The combination {self.combination} needs each bank's update, which secure aggregation "
                "hides; choose mean, or switch secure aggregation off."
            )
        if self.secure_aggregation and self.adapter == "product":
            raise FinLoraError(
                "The adapter product needs each bank's A and B, which secure aggregation hides; choose ffa, "
                "alternating or core, or switch secure aggregation off."
            )
        if self.adapter == "product" and self.server_optimizer != "none":
            raise FinLoraError("The adapter product has no update to give a server optimizer; choose none.")
        if self.adapter == "product" and self.combination != "mean":
            raise FinLoraError(
                "The adapter product is combined by mean alone; choose another adapter or mean."
            )

    @property
    def is_private(self) -> bool:
        """Whether banks train with differential privacy."""
        return math.isfinite(self.epsilon)

    def to_json(self) -> str:
        """Return what `from_json` reads back; infinity is written as text."""
        return json.dumps(self.record(), sort_keys=True)

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return dataclasses.asdict(self) | {"epsilon": self.epsilon if self.is_private else "inf"}

    @classmethod
    def from_json(cls, text: str) -> "FederatedSettings":
        """Return the settings that a server sent.

        Raises:
            FinLoraError: They are malformed or make no run.
        """
        return from_record(cls, json.loads(text))


@dataclass(frozen=True, kw_only=True)
class BankSettings:
    """What one bank decides for itself; none of it is sent, and no server can change it."""

    name: str
    """Name of the bank in logs; the server learns it."""
    folder: str
    """Where the bank keeps its ledger, its answers and its own expert; on a disk that survives restarts."""
    max_epsilon: float = math.inf
    """The bank answers no run that would give its records less privacy than this."""
    key: str = ""
    """File of the bank's private node key, for secure aggregation."""
    peers: str = ""
    """JSON file with the public node key of every bank of the run, this one too. A bank that has one answers
    runs with secure aggregation only."""
    proofs: str = ""
    """Folder of the setup of proofs that the server published, for runs with proofs."""

    def __post_init__(self) -> None:
        """Reject names that could not be a file's."""
        if not self.name or not all(letter.isalnum() or letter in "._-" for letter in self.name):
            raise FinLoraError(
                f"A bank's name is made of letters, digits, '.', '_' and '-', got {self.name!r}."
            )

    def refuse(self, settings: FederatedSettings) -> str | None:
        """Return why the bank takes no part in a run, in one sentence, or None where it does."""
        if settings.epsilon > self.max_epsilon:
            allowed = f"{self.max_epsilon:g}"
            return f"The run's epsilon {settings.epsilon:g} is above the {allowed} that this bank allows."
        if settings.secure_aggregation and not (self.key and self.peers):
            return "The run adds updates secretly, but this bank has no key or no list of the banks' keys."
        if self.peers and not settings.secure_aggregation:
            return "The run would show the server each update; this bank takes part in secret sums only."
        return None


def from_record(kind: type, record: Mapping[str, Any]) -> Any:
    """Return settings of a JSON record.

    Raises:
        FinLoraError: A field is unknown or missing.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise FinLoraError(
            f"{kind.__name__} has no field {unknown[0]!r}; its fields are {', '.join(fields)}."
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    for name in ("epsilon", "max_epsilon"):
        if name in values:
            values[name] = float(values[name])
    try:
        return kind(**values)
    except TypeError as error:
        raise FinLoraError(f"These are no {kind.__name__}: {error}.") from error
