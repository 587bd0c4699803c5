"""From the banks' updates to the next global adapter, where the server may see each of them.

Sums run in float64 over banks in the order of their names, so that the result does not depend on who answered
first.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Float32

from .adapters import FederatedAdapter
from .manifest import Manifest, Update
from .robust import krum, median, trimmed_mean
from .settings import Combination

Rule = Callable[[Float32[np.ndarray, "bank value"]], Float32[np.ndarray, " value"]]
"""Combines the banks' flat updates, one a row, into one."""


def mean_rule(rows: Float32[np.ndarray, "bank value"]) -> Float32[np.ndarray, " value"]:
    """Return the mean of the banks' updates, each counted alike.

    Banks take equally many steps in a round, so their updates need no weights; and a bank that could weigh
    itself by a number of records that nobody can check could take over the mean.
    """
    return rows.astype(np.float64).mean(axis=0).astype(np.float32)


RULES: dict[Combination, Rule] = {
    "mean": mean_rule,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
}

OPPOSED = -0.3
"""Cosine to the sum of all others below which an update counts as turned against them."""


def opposed_banks(manifest: Manifest, updates: Mapping[str, Update]) -> list[str]:
    """Return the banks whose updates point against the sum of the others', as a flipped sign makes them do.

    Updates of honest banks with unlike data are near a right angle at worst, as are those that are mostly
    noise. The most opposed one is taken out first, because it turns the sum for all others. Less than half
    are taken out, and none of fewer than three: nobody could tell which side is right.
    """
    rows = {bank: manifest.flatten(updates[bank]).astype(np.float64) for bank in sorted(updates)}
    found: list[str] = []
    while len(rows) >= 3 and len(found) + 1 < len(updates) / 2:
        total = np.sum(list(rows.values()), axis=0)
        cosines = {bank: _cosine(row, total - row) for bank, row in rows.items()}
        worst = min(cosines, key=lambda bank: cosines[bank])
        if cosines[worst] >= OPPOSED:
            break
        found.append(worst)
        del rows[worst]
    return found


def _cosine(one: Float[np.ndarray, " value"], other: Float[np.ndarray, " value"]) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def combine(
    adapter: FederatedAdapter,
    manifest: Manifest,
    current: Update,
    updates: Mapping[str, Update],
    rule: Rule = mean_rule,
) -> dict[str, np.ndarray]:
    """Return the next values of the shared tensors.

    Args:
        adapter: Says which kind is trained and how tensors belong together.
        manifest: What all updates were checked against.
        current: Shared tensors that the banks started from.
        updates: Bank -> its difference to them; at least one.
        rule: How differences are combined; not used for the kind product, which averages products.
    """
    banks = sorted(updates)
    if adapter.settings.adapter == "product":
        return _mean_of_products(adapter, current, [updates[bank] for bank in banks])
    rows = np.stack([manifest.flatten(updates[bank]) for bank in banks])
    return add(current, manifest.unflatten(rule(rows)))


def add(current: Update, difference: Update) -> dict[str, np.ndarray]:
    """Return tensors moved by a difference; those that it does not name stay."""
    return {
        name: (values + difference[name] if name in difference else values).astype(np.float32)
        for name, values in current.items()
    }


def _mean_of_products(
    adapter: FederatedAdapter, current: Update, updates: list[Update]
) -> dict[str, np.ndarray]:
    combined = dict(current)
    for factors in adapter.layers.values():
        down, up = factors["A"], factors["B"]
        downs = [current[down].astype(np.float64) + update[down] for update in updates]
        ups = [current[up].astype(np.float64) + update[up] for update in updates]
        combined[down], combined[up] = nearest_of_rank(ups, downs, adapter.settings.rank)
    return combined


def nearest_of_rank(
    ups: list[Float[np.ndarray, "d_out inner"]], downs: list[Float[np.ndarray, "inner d_in"]], rank: int
) -> tuple[Float32[np.ndarray, "rank d_in"], Float32[np.ndarray, "d_out rank"]]:
    """Return the A and B whose product is the nearest of its rank to the mean of products B_k A_k.

    The mean is exact as the product of all B side by side and all A one below the other; only then is it cut
    to the rank, by a singular value decomposition (Eckart and Young 1936). The d_out x d_in matrix is never
    made.

    Args:
        ups: B of each bank.
        downs: A of each bank.
        rank: Inner width of the result.
    """
    wide, tall = np.concatenate(ups, axis=1) / len(ups), np.concatenate(downs, axis=0)
    left, left_core = np.linalg.qr(wide)
    right, right_core = np.linalg.qr(tall.T)
    inner_left, values, inner_right = np.linalg.svd(left_core @ right_core.T)
    # Both factors get the root of each singular value, so that they stay of like size in the next round.
    roots = np.sqrt(values[:rank])
    up = left @ inner_left[:, :rank] * roots
    down = roots[:, None] * (inner_right[:rank] @ right.T)
    return down.astype(np.float32), up.astype(np.float32)
