"""All parties of a federated run in one process: the same apps, with messages handed over instead of sent.

Flower's own simulation starts Ray and copies the base into each of its workers. Here all banks share one
loaded base, one after the other, so that a round of five banks takes as long as its training. Every message
still goes through Flower's wire format, so what a deployment would refuse is refused here.
"""

import dataclasses
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as WireRecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ..tasks.task import Example
from .bank import Bank, WarmBase
from .bank_app import bank_app
from .identity import KEY_FILE, make_identities
from .randomness import Randomness
from .server_app import ServerJob, server_app
from .settings import BankSettings

logger = logging.getLogger(__name__)

PARTITION = "partition-id"
"""Flower's name of a simulated node's number."""


class InProcessGrid(Grid):
    """Delivers messages to a `ClientApp` in this process.

    A node that does not answer in time is left behind in its thread, as a hanging bank is by a real server.
    """

    def __init__(self, app: ClientApp, n_nodes: int) -> None:
        self.app = app
        # Flower's messages name the process that makes them: here the server of run 1.
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        # Flower's ids are arbitrary too; these show that nothing relies on counting from 0.
        self.contexts = {
            1000 + 7 * index: Context(
                run_id=1,
                node_id=1000 + 7 * index,
                node_config={PARTITION: index},
                state=RecordDict(),
                run_config={},
            )
            for index in range(n_nodes)
        }
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Do nothing: there is one run."""

    @property
    def run(self) -> Run:
        """Flower's record of the run."""
        return Run.create_empty(1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as Flower's other grids do."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each message answered without a limit of time; `pull_messages` fetches the answers."""
        numbers = []
        for message in messages:
            numbers.append(self._numbered(message))
            for reply in self.deliver(message):
                self._replies[numbers[-1]] = reply
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return answers that have come and were not fetched yet."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Have messages answered and return the answers that come in time."""
        end = None if timeout is None else time.monotonic() + timeout
        answers: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
        asked = list(messages)
        for message in asked:
            self._numbered(message)
            # Banks that share a base wait for each other at its lock; one that hangs elsewhere stops nobody.
            threading.Thread(target=lambda m=message: answers.put(self.deliver(m)), daemon=True).start()
        replies: list[Message] = []
        try:
            for _ in asked:
                replies += answers.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
        except queue.Empty:
            pass
        return replies

    def deliver(self, message: Message) -> list[Message]:
        """Return what a node sends back to one message; a subclass may lose, change or repeat it."""
        context = self.contexts[message.metadata.dst_node_id]
        message.content = over_the_wire(message.content)
        try:
            reply = self.app(message, context)
        except Exception as error:
            # As flwr-clientapp does when an app lets an exception out.
            logger.exception("A node's app raised an exception.")
            reply = Message(
                Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=repr(error)), reply_to=message
            )
        if reply.has_content():
            reply.content = over_the_wire(reply.content)
        return [reply]

    def _numbered(self, message: Message) -> str:
        number = str(next(self._numbers))
        message.metadata.__dict__["_message_id"] = number
        return number


def over_the_wire(content: RecordDict) -> RecordDict:
    """Return content as the other side reads it from the bytes that Flower sends."""
    sent = recorddict_to_proto(content).SerializeToString()
    return recorddict_from_proto(WireRecordDict.FromString(sent))


def simulate(
    job: ServerJob,
    parts: Mapping[str, Sequence[Example]],
    warm: WarmBase,
    folder: Path,
    *,
    max_epsilon: float = float("inf"),
    randomness: Callable[[str, int], Randomness] | None = None,
    grid: Callable[[ClientApp, int], Grid] = InProcessGrid,
) -> Path:
    """Run a federated training with all banks in this process; returns the expert's folder.

    Args:
        job: What the server trains.
        parts: Bank -> its records.
        warm: The base that all parties share.
        folder: Where the banks keep what is theirs, each in a folder of its name.
        max_epsilon: Least privacy that the banks accept.
        randomness: As for `Bank`; for tests only.
        grid: How messages get to banks; tests lose, change and repeat them.

    Raises:
        FinLoraError: As `run_rounds`.
    """
    secret = {}
    if job.settings.secure_aggregation:
        peers = make_identities(folder, parts)
        job = dataclasses.replace(job, peers=peers, proofs=job.proofs or folder / "proofs")
        secret = {"peers": str(peers), "proofs": str(job.proofs) if job.settings.proofs else ""}
    banks = [
        Bank(
            BankSettings(
                name=name,
                folder=str(folder / name),
                max_epsilon=max_epsilon,
                key=str(folder / name / KEY_FILE) if secret else "",
                **secret,
            ),
            warm,
            examples,
            task=job.task,
            randomness=randomness,
        )
        for name, examples in parts.items()
    ]
    app = bank_app(lambda context: banks[int(context.node_config[PARTITION])])
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    try:
        server_app(job, warm)(grid(app, len(banks)), context)
    finally:
        warm.remove()
    return job.out
