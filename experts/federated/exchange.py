"""The server's side of one question to many banks: who is there, who answered in time, and what is refused.

Flower delivers messages; everything that makes an answer acceptable is checked here, and every refusal is
logged with its cause in one sentence.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from ..errors import FinLoraError
from .messages import JOIN, Content, MessageError, number_of, pack, text_of, unpack

Log = Callable[[int, str, str], None]
"""Writes round, bank (empty: none in particular) and cause to the audit log."""

POLL_SECONDS = 1.0
LATE_SECONDS = 60.0
"""How much longer than we wait Flower keeps a message, whose clocks may differ."""


class Exchange:
    """The banks of one run and how to ask them."""

    def __init__(self, grid: Grid, run: str, log: Log) -> None:
        self.grid, self.run, self.log = grid, run, log
        self.banks: dict[str, int] = {}
        """Bank -> Flower's id of its node; authenticated by its key where SuperNodes must register."""
        self.silent: set[str] = set()
        """Banks that did not answer their last question in time."""

    def gather(self, header: Mapping[str, str], *, count: int, timeout: float) -> None:
        """Wait until so many banks have joined.

        Raises:
            FinLoraError: Fewer have joined when the time is up.
        """
        end = time.monotonic() + timeout
        while len(self.banks) < count:
            self.meet(header, round_number=0, timeout=max(0.0, end - time.monotonic()))
            if len(self.banks) >= count:
                return
            if time.monotonic() + POLL_SECONDS > end:
                raise FinLoraError(
                    f"{len(self.banks)} of {count} banks joined within {timeout:g} s; start the others, or "
                    "wait for fewer."
                )
            time.sleep(POLL_SECONDS)

    def meet(self, header: Mapping[str, str], *, round_number: int, timeout: float) -> None:
        """Ask nodes that are new or were silent who they are; those that answer take part from now on."""
        known = {node: bank for bank, node in self.banks.items()}
        asked = [
            node
            for node in sorted(self.grid.get_node_ids())
            if known.get(node) is None or known[node] in self.silent
        ]
        question = Content({**header, "run": self.run})
        for node, content in self._send(JOIN, dict.fromkeys(asked, question), round_number, timeout).items():
            try:
                bank = text_of(content.header, "bank")
                self._admit(bank, node)
            except MessageError as error:
                self.log(round_number, known.get(node, ""), str(error))

    def ask(
        self, kind: str, questions: Mapping[str, Content], *, round_number: int, timeout: float
    ) -> dict[str, Content]:
        """Ask banks, each its own question, and return acceptable answers in the order of the banks' names.

        Args:
            kind: Type of the message.
            questions: Bank -> question.
            round_number: The round that they and their answers belong to.
            timeout: Seconds after which the round goes on with those that answered.
        """
        by_node = {self.banks[bank]: question for bank, question in questions.items()}
        received = self._send(kind, by_node, round_number, timeout)
        answers = {}
        for bank in sorted(questions):
            content = received.get(self.banks[bank])
            if content is None:
                continue
            try:
                self._check(content, bank, round_number)
                answers[bank] = content
            except MessageError as error:
                self.log(round_number, bank, str(error))
        return answers

    def _admit(self, bank: str, node: int) -> None:
        holder = self.banks.get(bank)
        if holder is not None and holder != node and bank not in self.silent:
            raise MessageError("Another node already answers under this bank's name.")
        if node in {other for name, other in self.banks.items() if name != bank}:
            raise MessageError("A node changed the name of its bank.")
        self.banks[bank] = node
        self.silent.discard(bank)

    def _check(self, content: Content, bank: str, round_number: int) -> None:
        if text_of(content.header, "bank") != bank:
            raise MessageError("The answer bears another bank's name.")
        if text_of(content.header, "run") != self.run:
            raise MessageError("The answer belongs to another run.")
        if number_of(content.header, "round") != round_number:
            raise MessageError("The answer belongs to another round.")

    def _send(
        self, kind: str, questions: Mapping[int, Content], round_number: int, timeout: float
    ) -> dict[int, Content]:
        messages = [
            Message(pack(question), node, kind, ttl=timeout + LATE_SECONDS, group_id=str(round_number))
            for node, question in questions.items()
        ]
        names = {node: bank for bank, node in self.banks.items()}
        answers: dict[int, Content] = {}
        refused: set[int] = set()
        for reply in self._replies(messages, timeout):
            node = reply.metadata.src_node_id
            bank = names.get(node, "")
            if node not in questions or reply.metadata.message_type != kind:
                self.log(round_number, bank, "An answer came that nobody had asked for.")
            elif node in answers or node in refused:
                self.log(round_number, bank, "The bank answered twice; its second answer is dropped.")
            elif reply.has_error():
                if reply.error.code != ErrorCode.CLIENT_APP_RAISED_EXCEPTION:
                    # Flower's own: the node is gone, or the message grew too old.
                    continue
                refused.add(node)
                self.log(round_number, bank, reply.error.reason or "The bank's app failed.")
            else:
                try:
                    answers[node] = unpack(reply.content)
                except MessageError as error:
                    refused.add(node)
                    self.log(round_number, bank, str(error))
        for node in questions.keys() - answers.keys() - refused:
            bank = names.get(node, "")
            if bank and bank not in self.silent:
                self.silent.add(bank)
                self.log(round_number, bank, f"No answer within {timeout:g} s.")
        return answers

    def _replies(self, messages: list[Message], timeout: float) -> Iterable[Message]:
        return self.grid.send_and_receive(messages, timeout=timeout) if messages else []
