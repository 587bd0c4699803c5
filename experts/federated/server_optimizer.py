"""Adam on the server: the banks' mean difference is a gradient, not the next adapter (FedAdam).

Reddi et al. 2021, arXiv:2003.00295. Each bank takes few steps of plain gradient descent, so banks whose
records differ do not drift apart, and with privacy the banks' noise is averaged before a step is taken.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from .manifest import Update

FIRST_DECAY, SECOND_DECAY = 0.9, 0.95
EPSILON = 1e-8
FINAL_SHARE = 0.1
"""Share of the step size that is left in the last round."""

Moments = Mapping[str, np.ndarray]
"""`first:NAME` and `second:NAME`, the running means of a tensor's differences and of their squares, and
`count:NAME`, in how many rounds it was trained."""


def adam_step(
    current: Update,
    combined: Update,
    moments: Moments,
    names: Iterable[str],
    *,
    learning_rate: float,
    round_number: int,
    rounds: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the next values of the shared tensors, and the moments after this round.

    Args:
        current: Values that the banks started from.
        combined: What averaging made of their differences.
        moments: Of the rounds before; empty before the first.
        names: Tensors that this round trains; the others stay.
        learning_rate: Step size in the first round; it falls to a tenth along a cosine.
        round_number: Counted from 1.
        rounds: Rounds of the whole run.
    """
    share = (round_number - 1) / max(1, rounds - 1)
    rate = learning_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * share)) / 2)
    following, after = dict(current), dict(moments)
    for name in names:
        zero = np.zeros_like(current[name])
        gradient = combined[name] - current[name]
        first = FIRST_DECAY * moments.get(f"first:{name}", zero) + (1 - FIRST_DECAY) * gradient
        second = SECOND_DECAY * moments.get(f"second:{name}", zero) + (1 - SECOND_DECAY) * gradient**2
        count = moments.get(f"count:{name}", np.zeros(1, np.float32)) + 1
        mean = first / (1 - FIRST_DECAY ** count[0])
        spread = np.sqrt(second / (1 - SECOND_DECAY ** count[0]))
        following[name] = (current[name] + rate * mean / (spread + EPSILON)).astype(np.float32)
        after |= {
            f"first:{name}": first.astype(np.float32),
            f"second:{name}": second.astype(np.float32),
            f"count:{name}": count.astype(np.float32),
        }
    return following, after
