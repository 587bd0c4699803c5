"""What all routes share: engine, registry, the base's words, limits, metrics and threads."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from ....experts.base_model import Base
from ....experts.encoding import token_limit
from ....experts.errors import FinLoraError
from ..registry import ExpertRegistry, RegisteredMixture
from ..requests import BASE_MODEL, FinishEvent, ModelChoice, QuarantinedModelError, ServingEngine
from .answering import Answering
from .api_settings import ApiSettings
from .metrics import ApiMetrics
from .prompts import Prompts
from .token_text import Vocabulary

ModelKind = Literal["base", "expert", "mixture", "weights"]


@dataclass(frozen=True)
class ApiParts:
    """One server's parts."""

    engine: ServingEngine
    registry: ExpertRegistry
    base_name: str
    prompts: Prompts
    vocabulary: Vocabulary
    settings: ApiSettings
    metrics: ApiMetrics
    threads: ThreadPoolExecutor
    started: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    @classmethod
    def build(
        cls, engine: ServingEngine, registry: ExpertRegistry, base: Base, settings: ApiSettings
    ) -> "ApiParts":
        """Make the parts.

        Args:
            engine: Answers requests.
            registry: Experts and mixtures that the engine answers with.
            base: The engine's.
            settings: Limits.

        Raises:
            FinLoraError: If the base's tokenizer cannot be served.
        """
        config = base.model.config.get_text_config(decoder=True)
        return cls(
            engine=engine,
            registry=registry,
            base_name=base.name,
            prompts=Prompts(base.tokenizer, token_limit=token_limit(config)),
            vocabulary=Vocabulary(base.tokenizer, size=config.vocab_size, end_ids=_end_ids(base)),
            settings=settings,
            metrics=ApiMetrics(engine),
            # Of more answers than threads, the last wait in their tickets.
            threads=ThreadPoolExecutor(settings.open_limit, thread_name_prefix="finlora-answer"),
        )

    def answering(self, model: ModelChoice) -> Answering:
        """Prepare the answers of one HTTP request."""
        return Answering(
            self.engine,
            self.vocabulary,
            self.threads,
            ended=self._count(model),
            stall_seconds=self.settings.stall_seconds,
        )

    def _count(self, model: ModelChoice) -> Callable[[FinishEvent], None]:
        # Of sets of weights there is no end, so that they share one name in the metrics.
        name = model if isinstance(model, str) else "weights"

        def count(event: FinishEvent) -> None:
            self.metrics.ended(self.kind_of(model), name, event)

        return count

    def kind_of(self, model: ModelChoice) -> ModelKind:
        """Return what a request asks for; a model that is gone by now counts as an expert."""
        if not isinstance(model, str):
            return "weights"
        if model == BASE_MODEL:
            return "base"
        try:
            return "mixture" if isinstance(self.registry.find(model), RegisteredMixture) else "expert"
        except FinLoraError:
            return "expert"

    def is_quarantined(self, model: ModelChoice) -> bool:
        """Whether an expert that was asked for is in quarantine by now."""
        try:
            for name in [model] if isinstance(model, str) else model:
                self.registry.find(name)
        except QuarantinedModelError:
            return True
        except FinLoraError:
            return False
        return False


def name_of(model: ModelChoice) -> str:
    """Return a model as a string that names it in a request again."""
    return model if isinstance(model, str) else json.dumps(dict(model))


def _end_ids(base: Base) -> list[int]:
    """Tokens at which the base ends, as its generation config or else its config says."""
    generation = base.model.generation_config
    end = None if generation is None else generation.eos_token_id
    if end is None:
        end = base.model.config.get_text_config(decoder=True).eos_token_id
    if end is None:
        return []
    return [end] if isinstance(end, int) else list(end)
