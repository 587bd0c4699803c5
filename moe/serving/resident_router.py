"""How Ray Serve chooses the replica of a request: the one that has its experts on the device.

Ray sends this module's code to other processes by value, where a class imported from elsewhere is another
one; so it asks what is forwarded for its `models` instead of for its type.
"""

import random
import time
from collections import defaultdict
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

RECENT_SECONDS = 10.0
"""For how long a replica counts as one that has what it was just asked for."""


class ResidentRouter(RequestRouter):
    """Prefers the replicas that lack the fewest of the models that a request names."""

    def initialize_state(self, **_: Any) -> None:
        """Begin without knowledge."""
        self._asked: dict[ReplicaID, dict[str, float]] = defaultdict(dict)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return replicas one by one, best first, equal ones in random order.

        In one group Ray would stay with the replica whose queue it knows, and never try the other.
        """
        wanted = _wanted(pending_request)
        groups: dict[tuple[int, int], list[RunningReplica]] = defaultdict(list)
        for replica in candidate_replicas:
            resident = self._resident(replica)
            # An expert that nobody has goes where fewest are.
            missing = len(wanted - resident)
            groups[missing, len(resident) if missing else 0].append(replica)
        for group in groups.values():
            random.shuffle(group)
        return [[replica] for key in sorted(groups) for replica in groups[key]]

    def _resident(self, replica: RunningReplica) -> set[str]:
        since = time.monotonic() - RECENT_SECONDS
        recent = self._asked[replica.replica_id]
        for name in [name for name, at in recent.items() if at < since]:
            del recent[name]
        return {*replica.routing_stats.get("resident", ()), *recent}

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Remember what a replica is about to load, before it tells."""
        del result
        self._asked[replica_id].update(dict.fromkeys(_wanted(pending_request), time.monotonic()))


def _wanted(pending: PendingRequest | None) -> frozenset[str]:
    forwarded = pending.args[0] if pending is not None and pending.args else None
    return getattr(forwarded, "models", frozenset())
