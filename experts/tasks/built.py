"""What a builder of questions hands back: the questions, and what it left out."""

from collections import Counter
from dataclasses import dataclass

from .task import Example


@dataclass(frozen=True)
class Built:
    """Questions, and how many candidates were dropped by reason."""

    examples: list[Example]
    dropped: Counter[str]
