"""The loss of a candidate on examples that are nobody's secret, by which the gate judges it."""

from collections.abc import Sequence

import torch

from ..encoding import collate, encode_examples, token_limit
from ..errors import FinLoraError
from ..tasks.task import Example
from .bank import WarmBase
from .manifest import Update
from .private_training import record_losses
from .settings import FederatedSettings

BATCH = 24
"""Examples that go through the model at once."""


class PublicLoss:
    """Mean loss per example of the answers, as a function of the shared tensors."""

    def __init__(self, warm: WarmBase, settings: FederatedSettings, examples: Sequence[Example]) -> None:
        """Tokenize the examples; those too long for the base are left out.

        Raises:
            FinLoraError: None is left.
        """
        base = warm.base
        limit = token_limit(base.model.config)
        rows = [row for row in encode_examples(base.tokenizer, examples) if len(row.input_ids) <= limit]
        if not rows:
            raise FinLoraError(f"No public example fits the base {base.name}; give others, or none.")
        rows.sort(key=lambda row: len(row.input_ids))
        self.warm, self.settings, self.count = warm, settings, len(rows)
        pad_id: int = base.tokenizer.pad_token_id  # pyright: ignore[reportAssignmentType]
        device = base.model.device
        self.batches = [
            {key: value.to(device) for key, value in collate(rows[start : start + BATCH], pad_id).items()}
            for start in range(0, len(rows), BATCH)
        ]

    def __call__(self, tensors: Update) -> float:
        """Return the loss with these values of the shared tensors."""
        with self.warm.lock, torch.no_grad():
            adapter = self.warm.adapter(self.settings)
            adapter.write(tensors)
            adapter.model.eval()
            return (
                sum(float(record_losses(adapter.model, batch).sum()) for batch in self.batches) / self.count
            )
