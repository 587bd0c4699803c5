"""What a worker keeps from job to job."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..experts.base_model import Base, load_base
from ..experts.tasks import Example, read_examples
from .layout import RunLayout
from .run_config import RunConfig
from .scope import Scope


@dataclass
class Workshop:
    """A run, its configuration and its base.

    Attributes:
        layout: The run's folder.
        config: Its configuration.
    """

    layout: RunLayout
    config: RunConfig

    @cached_property
    def base(self) -> Base:
        """The base, loaded once; every job leaves it as it was."""
        return load_base(self.config.base, self.config.quantization)

    def examples(self, task: str, split: str) -> list[Example]:
        """Examples of one split of a task, as stored in the run's folder."""
        return read_examples(self.layout.examples(task, split))

    def tasks_in(self, scope: Scope) -> tuple[str, ...]:
        """The tasks whose experts take part in a scope."""
        return tuple(task for task in self.config.tasks if task not in scope.without)
