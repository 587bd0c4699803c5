"""Bad input in simulation: it never reaches the global adapter, the round goes on, and the log says why.

The yardstick is a run in which the same bank is simply absent in the same round: its expert must be equal,
bit by bit.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Message, RecordDict
from safetensors.torch import load_file

from finlora.experts.errors import FinLoraError
from finlora.experts.federated import bank as bank_module
from finlora.experts.federated import server_app
from finlora.experts.federated.bank import Bank
from finlora.experts.federated.gate import Gate
from finlora.experts.federated.manifest import UpdateError
from finlora.experts.federated.messages import FAILURE, FORMAT, TENSORS, TRAIN, Content, pack, unpack
from finlora.experts.federated.server_app import ServerJob
from finlora.experts.federated.simulation import InProcessGrid, simulate

from .conftest import SETTINGS

CULPRIT = "bank-1"
SECRET = "4711.25"

Tamper = Callable[[Content], Content]


class FaultyGrid(InProcessGrid):
    """Changes what one bank sends in the second round."""

    fault: Callable[["FaultyGrid", Message], list[Message]]
    earlier: Message

    def deliver(self, message: Message) -> list[Message]:
        """Deliver, unless the fault is due."""
        node_is_culprit = list(self.contexts).index(message.metadata.dst_node_id) == 1
        if not node_is_culprit or message.metadata.message_type != TRAIN:
            return super().deliver(message)
        round_number = unpack(message.content).header["round"]
        if round_number == 2:
            return type(self).fault(self, message)
        (reply,) = super().deliver(message)
        self.earlier = reply
        return [reply]

    def honest(self, message: Message) -> Message:
        """What the bank would have answered."""
        return super().deliver(message)[0]


def run(warm, parts, folder: Path, fault, **changes) -> Path:
    grid = type("Grid", (FaultyGrid,), {"fault": staticmethod(fault)})
    settings = dataclasses.replace(SETTINGS, **changes)
    return simulate(ServerJob(settings, folder / "out", "sums"), parts, warm, folder / "banks", grid=grid)


def tampered(change: Tamper) -> Callable[[FaultyGrid, Message], list[Message]]:
    def fault(grid: FaultyGrid, message: Message) -> list[Message]:
        reply = grid.honest(message)
        reply.content = pack(change(unpack(reply.content)))
        return [reply]

    return fault


def with_tensor(change: Callable[[np.ndarray], np.ndarray]) -> Tamper:
    def change_first(content: Content) -> Content:
        name = sorted(content.tensors)[0]
        return Content(content.header, {**content.tensors, name: change(content.tensors[name])})

    return change_first


def scaled(factor: float) -> Tamper:
    return lambda content: Content(
        content.header, {name: values * np.float32(factor) for name, values in content.tensors.items()}
    )


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[1, 1] = value
        return values

    return change


def without_first(content: Content) -> Content:
    return Content(content.header, {name: content.tensors[name] for name in sorted(content.tensors)[1:]})


def with_extra(content: Content) -> Content:
    return Content(content.header, {**content.tensors, SECRET: np.zeros(2, np.float32)})


def with_header(**changes: object) -> Tamper:
    return lambda content: Content({**content.header, **changes}, content.tensors)


def absent(grid: FaultyGrid, message: Message) -> list[Message]:
    return []


def hangs(grid: FaultyGrid, message: Message) -> list[Message]:
    time.sleep(60)
    return []


def replays(grid: FaultyGrid, message: Message) -> list[Message]:
    return [grid.earlier]


def raw(record: RecordDict) -> Callable[[FaultyGrid, Message], list[Message]]:
    def fault(grid: FaultyGrid, message: Message) -> list[Message]:
        reply = grid.honest(message)
        header = reply.content.config_records["header"]
        reply.content = RecordDict({**record, "header": header} if record else {})
        return [reply]

    return fault


def array(data: bytes, stype: str = FORMAT) -> RecordDict:
    return RecordDict({TENSORS: ArrayRecord({TENSORS: Array("uint8", (len(data),), stype, data)})})


_HEADER = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
HUGE = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(16)

FAULTS = {
    "NaN": (tampered(with_tensor(put(np.nan))), "not finite"),
    "inf": (tampered(with_tensor(put(np.inf))), "not finite"),
    "wrong shape": (tampered(with_tensor(lambda values: values[:1])), "has shape"),
    "extra tensor": (tampered(with_extra), "does not list"),
    "missing tensor": (tampered(without_first), "lacks 1 of 6 tensors"),
    "wrong dtype": (tampered(with_tensor(lambda values: values.astype(np.float64))), "not of type float32"),
    "no tensors": (tampered(lambda content: Content(content.header)), "lacks 6 of 6 tensors"),
    "1e6 poison": (tampered(scaled(1e6)), "longer than the norm of 10"),
    "sign flip": (tampered(scaled(-1)), "points against the sum of all others"),
    "stale round": (tampered(with_header(round=1)), "belongs to another round"),
    "replayed message": (replays, "belongs to another round"),
    "another run": (tampered(with_header(run="other")), "belongs to another run"),
    "another bank's name": (tampered(with_header(bank="bank-0")), "bears another bank's name"),
    "header of another type": (tampered(with_header(round="2")), "no whole number round"),
    "no header": (raw(RecordDict()), "has no header"),
    "pickled tensors": (raw(array(b"\x80\x04N.")), "are damaged"),
    "another format": (raw(array(b"", "torch.tensor")), "not stored as safetensors"),
    "terabytes announced": (raw(array(HUGE)), "are damaged"),
    "hang": (hangs, "No answer within 8 s"),
}


@pytest.fixture(scope="module")
def yardstick() -> dict[str, torch.Tensor]:
    return {}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_in_one_round_is_as_if_the_bank_had_been_absent(warm, parts, tmp_path, yardstick, name) -> None:
    fault, cause = FAULTS[name]
    if not yardstick:
        yardstick |= load_file(run(warm, parts, tmp_path / "absent", absent) / "adapter_model.safetensors")
    out = run(warm, parts, tmp_path / "faulty", fault, timeout=8.0 if name == "hang" else 120.0)
    found = load_file(out / "adapter_model.safetensors")
    assert all(torch.equal(found[key], value) for key, value in yardstick.items())
    rounds = json.loads((out / "expert.json").read_text())["federated"]["rounds"]
    assert [len(entry["banks"]) for entry in rounds] == [3, 2, 3]
    assert all(entry["accepted"] for entry in rounds)
    (entry,) = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    assert (entry["round"], entry["bank"]) == (2, CULPRIT)
    assert cause in entry["cause"]
    assert SECRET not in (out / "audit.jsonl").read_text()


def test_bank_that_raises_is_left_out_and_its_text_stays_with_it(
    warm, parts, tmp_path, yardstick, monkeypatch, caplog
) -> None:
    if not yardstick:
        yardstick |= load_file(run(warm, parts, tmp_path / "absent", absent) / "adapter_model.safetensors")
    train = bank_module.train_locally
    calls = itertools.count()

    def failing(*arguments, **settings):
        if next(calls) == 4:
            raise ValueError(f"balance {SECRET}")
        return train(*arguments, **settings)

    monkeypatch.setattr(bank_module, "train_locally", failing)
    out = run(warm, parts, tmp_path / "raises", lambda grid, message: [grid.honest(message)])
    found = load_file(out / "adapter_model.safetensors")
    assert all(torch.equal(found[key], value) for key, value in yardstick.items())
    (entry,) = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    assert (entry["round"], entry["bank"], entry["cause"]) == (2, CULPRIT, FAILURE)
    assert SECRET not in (out / "audit.jsonl").read_text()
    assert SECRET in caplog.text


def test_second_answer_to_one_question_is_dropped(warm, parts, tmp_path) -> None:
    def twice(grid: FaultyGrid, message: Message) -> list[Message]:
        reply = grid.honest(message)
        again = Message(pack(scaled(1.5)(unpack(reply.content))), reply_to=message)
        return [reply, again]

    once = run(warm, parts, tmp_path / "once", lambda grid, message: [grid.honest(message)])
    out = run(warm, parts, tmp_path / "twice", twice)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (once, out))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "answered twice" in (out / "audit.jsonl").read_text()


class AllFaulty(InProcessGrid):
    """All banks send NaN in the second round."""

    def deliver(self, message: Message) -> list[Message]:
        """Deliver, and change what came back."""
        (reply,) = super().deliver(message)
        if message.metadata.message_type == TRAIN and unpack(message.content).header["round"] == 2:
            reply.content = pack(with_tensor(put(np.nan))(unpack(reply.content)))
        return [reply]


def test_round_with_too_few_banks_is_rolled_back(warm, parts, tmp_path) -> None:
    job = ServerJob(SETTINGS, tmp_path / "out", "sums")
    out = simulate(job, parts, warm, tmp_path / "banks", grid=AllFaulty)
    rounds = json.loads((out / "expert.json").read_text())["federated"]["rounds"]
    assert [entry["accepted"] for entry in rounds] == [True, False, True]
    assert "0 usable updates, 2 needed; the adapter stays as it was." in (out / "audit.jsonl").read_text()


class AllPoisoned(InProcessGrid):
    """All banks agree on an update that is short enough and ruins the model in the second round."""

    def deliver(self, message: Message) -> list[Message]:
        """Deliver, and change what came back."""
        (reply,) = super().deliver(message)
        if message.metadata.message_type == TRAIN and unpack(message.content).header["round"] == 2:
            reply.content = pack(scaled(-400)(unpack(reply.content)))
        return [reply]


def test_candidate_that_answers_public_examples_worse_is_rolled_back(
    warm, parts, tmp_path, monkeypatch
) -> None:
    # A random base of this size cannot get worse by the usual 5 %.
    monkeypatch.setattr(server_app, "Gate", partial(Gate, tolerance=0.01))
    # Before it can be ruined, the model must have learned something.
    settings = dataclasses.replace(SETTINGS, max_norm=1e4, learning_rate=3e-2, local_steps=12, rounds=2)
    job = ServerJob(settings, tmp_path / "out", "sums", parts["bank-0"][:8])
    out = simulate(job, parts, warm, tmp_path / "banks", grid=AllPoisoned)
    rounds = json.loads((out / "expert.json").read_text())["federated"]["rounds"]
    assert [entry["accepted"] for entry in rounds] == [True, False]
    assert "loss on public examples" in (out / "audit.jsonl").read_text()


def test_bank_whose_budget_is_spent_takes_no_further_part(warm, parts, tmp_path) -> None:
    pytest.importorskip("opacus")
    pytest.importorskip("dp_accounting")
    one = {"bank-0": parts["bank-0"]}
    settings = dataclasses.replace(SETTINGS, epsilon=8.0, delta=1e-3, rounds=1, banks=1, min_banks=1)
    simulate(ServerJob(settings, tmp_path / "first", "sums"), one, warm, tmp_path / "banks", max_epsilon=8.0)
    second = ServerJob(settings, tmp_path / "second", "sums")
    with pytest.raises(FinLoraError, match="No round changed the adapter"):
        simulate(second, one, warm, tmp_path / "banks", max_epsilon=8.0)
    log = (tmp_path / "second" / "training" / "audit.jsonl").read_text()
    assert log.count("The bank's privacy budget is spent.") == 1


def test_bank_refuses_less_privacy_than_it_allows(warm, parts, tmp_path) -> None:
    job = ServerJob(dataclasses.replace(SETTINGS, timeout=3.0), tmp_path / "out", "sums")
    with pytest.raises(FinLoraError, match="0 of 3 banks joined"):
        simulate(job, parts, warm, tmp_path / "banks", max_epsilon=8.0)
    log = (tmp_path / "out" / "training" / "audit.jsonl").read_text()
    assert "The run's epsilon inf is above the 8 that this bank allows." in log


def question(**changes: object) -> Content:
    return Content({"run": "r", "round": 1, "settings": SETTINGS.to_json(), **changes})


@pytest.fixture
def bank(warm, parts, tmp_path) -> Bank:
    settings = bank_module.BankSettings(name="bank-0", folder=str(tmp_path / "bank"))
    return Bank(settings, warm, parts["bank-0"], task="sums")


def test_bank_checks_what_the_server_sends(bank, warm) -> None:
    adapter = warm.adapter(SETTINGS)
    good = {name: adapter.initial[name] for name in adapter.all_shared()}
    bad = {**good, adapter.all_shared()[0]: np.full_like(good[adapter.all_shared()[0]], np.nan)}
    for tensors, cause in ((bad, "not finite"), ({}, "lacks 6 of 6")):
        with pytest.raises(UpdateError, match=cause):
            bank.answer(TRAIN, Content(question().header, tensors))
    for changes, cause in (
        ({"round": 4}, "has no round 4"),
        ({"round": 0}, "has no round 0"),
        ({"settings": "{"}, "make no run"),
        ({"settings": '{"rank": 0}'}, "make no run"),
        ({"settings": '{"seed": "x", "rank": []}'}, "make no run"),
    ):
        with pytest.raises(bank_module.RefusalError, match=cause):
            bank.answer(TRAIN, Content(question(**changes).header, good))
    with pytest.raises(bank_module.RefusalError, match="does not know this kind"):
        bank.answer("query.secrets", question())


def test_same_question_gets_the_same_answer_and_an_answered_round_is_not_asked_again(bank, warm) -> None:
    adapter = warm.adapter(SETTINGS)
    good = {name: adapter.initial[name] for name in adapter.all_shared()}
    first = bank.answer(TRAIN, Content(question().header, good))
    again = bank.answer(TRAIN, Content(question().header, good))
    assert all(np.array_equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    other = {name: values + np.float32(1) for name, values in good.items()}
    with pytest.raises(bank_module.RefusalError, match="cannot be asked again"):
        bank.answer(TRAIN, Content(question().header, other))


def test_name_of_a_run_cannot_leave_the_bank_s_folder(bank, warm, tmp_path) -> None:
    adapter = warm.adapter(SETTINGS)
    good = {name: adapter.initial[name] for name in adapter.all_shared()}
    bank.answer(TRAIN, Content(question(run="../../outside").header, good))
    assert not (tmp_path.parent / "outside").exists()
    assert len(list((tmp_path / "bank").iterdir())) == 1
