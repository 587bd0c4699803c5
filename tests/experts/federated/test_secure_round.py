"""Whole runs in which the server sees no update: same result, same faults survived, and proofs that count."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

from flwr.app import Message

from finlora.experts.errors import FinLoraError
from finlora.experts.federated import server_app
from finlora.experts.federated.messages import TRAIN, Content, pack, unpack
from finlora.experts.federated.quantize import SCALE
from finlora.experts.federated.secure_messages import (
    KEYS,
    MASKED,
    PROOF,
    REVEAL,
    SHARES,
    SIGNATURE,
)
from finlora.experts.federated.server_app import ServerJob
from finlora.experts.federated.simulation import InProcessGrid, simulate

from .conftest import SETTINGS

CULPRIT = "bank-1"
STEPS = (KEYS, SHARES, TRAIN, REVEAL)
ONE_ROUND = {"rounds": 1, "adapter": "core", "secure_aggregation": True}
HALF_A_LANE = 0.5 / SCALE + 1e-7
CORE_TOLERANCE = 4 * HALF_A_LANE
"""A core is stored as its product with a frozen B, each row of which adds up 4 values below 1."""

Change = Callable[[Content], Content]


class WatchedGrid(InProcessGrid):
    """Keeps what the banks send, and changes or loses what one of them sends in one step of one round."""

    step: str = ""
    round_number: int = 1
    change: Change | None = None
    sent: list[tuple[str, Content]]

    def deliver(self, message: Message) -> list[Message]:
        """Deliver; a fault without a change loses the answer."""
        (reply,) = super().deliver(message)
        kind, is_culprit = message.metadata.message_type, self._is_culprit(message)
        if kind == self.step and is_culprit and unpack(message.content).header["round"] == self.round_number:
            if self.change is None:
                return []
            reply.content = pack(self.change(unpack(reply.content)))
        if reply.has_content():
            self.sent.append((kind, unpack(reply.content)))
        return [reply]

    def _is_culprit(self, message: Message) -> bool:
        return list(self.contexts).index(message.metadata.dst_node_id) == 1


def run(warm, parts, folder: Path, *, step="", change=None, round_number=1, **changes) -> tuple[Path, list]:
    sent: list[tuple[str, Content]] = []
    members = {
        "step": step,
        "sent": sent,
        "round_number": round_number,
        "change": staticmethod(change) if change else None,
    }
    grid = type("Grid", (WatchedGrid,), members)
    settings = dataclasses.replace(SETTINGS, **{**ONE_ROUND, **changes})
    job = ServerJob(settings, folder / "out", "sums")
    return simulate(job, parts, warm, folder / "banks", grid=grid), sent


def causes(out: Path) -> list[str]:
    lines = (out / "audit.jsonl").read_text().splitlines()
    return [f"{entry['bank']}: {entry['cause']}" for entry in map(json.loads, lines)]


def rounds_of(out: Path) -> list[dict]:
    return json.loads((out / "expert.json").read_text())["federated"]["rounds"]


def assert_near(actual: Path, expected: Path, *, tolerance: float = HALF_A_LANE) -> None:
    """Equal within quantization, where what is trained is stored as it is."""
    first, second = (load_file(path / "adapter_model.safetensors") for path in (actual, expected))
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=0, atol=tolerance)


@pytest.fixture
def absent(warm, parts, tmp_path) -> Path:
    """The expert of a plain run without the culprit in the round."""
    return run(warm, parts, tmp_path / "absent", step=TRAIN, adapter="fedit", secure_aggregation=False)[0]


def test_the_expert_is_that_of_the_plain_mean_within_quantization(warm, parts, tmp_path) -> None:
    plain, _ = run(warm, parts, tmp_path / "plain", adapter="fedit", secure_aggregation=False)
    secret, sent = run(warm, parts, tmp_path / "secret", adapter="fedit")
    assert_near(secret, plain)
    assert causes(secret) == []
    assert rounds_of(secret)[0]["banks"] == ["bank-0", "bank-1", "bank-2"]
    # All that left a bank as tensors are lanes that look random.
    for kind, content in sent:
        assert set(content.tensors) == ({MASKED} if kind == TRAIN else set())
        if kind == TRAIN:
            lanes = content.tensors[MASKED]
            assert lanes.dtype == np.int32
            assert np.abs(lanes.astype(np.float64)).mean() == pytest.approx(2**30, rel=0.1)


def test_the_yardstick_tells_a_run_without_the_bank_from_one_with_it(warm, parts, tmp_path, absent) -> None:
    everybody, _ = run(warm, parts, tmp_path / "plain", adapter="fedit", secure_aggregation=False)
    with pytest.raises(AssertionError, match="not close"):
        assert_near(everybody, absent, tolerance=4 * CORE_TOLERANCE)


@pytest.mark.parametrize("step", STEPS)
def test_a_bank_that_drops_out_in_any_step_is_as_if_absent_or_still_counted(
    warm, parts, tmp_path, absent, step
) -> None:
    out, _ = run(warm, parts, tmp_path / "secret", step=step, adapter="fedit")
    if step == REVEAL:
        plain, _ = run(warm, parts, tmp_path / "plain", adapter="fedit", secure_aggregation=False)
        assert_near(out, plain)
        assert rounds_of(out)[0]["banks"] == ["bank-0", "bank-1", "bank-2"]
    else:
        assert_near(out, absent)
        assert rounds_of(out)[0]["banks"] == ["bank-0", "bank-2"]
    assert [cause for cause in causes(out) if cause.startswith(CULPRIT)]


def with_header(**changes: object) -> Change:
    return lambda content: Content({**content.header, **changes}, content.tensors)


def without_lanes(content: Content) -> Content:
    return Content(content.header)


def with_float_lanes(content: Content) -> Content:
    return Content(content.header, {MASKED: content.tensors[MASKED].astype(np.float32)})


def with_fewer_lanes(content: Content) -> Content:
    return Content(content.header, {MASKED: content.tensors[MASKED][1:]})


@pytest.mark.parametrize(
    ("step", "change", "cause"),
    [
        (KEYS, with_header(keys=b"junk"), "not signed by it"),
        (KEYS, with_header(keys="text"), "no bytes keys"),
        (SHARES, with_header(banks=["bank-0"]), "one entry for each bank"),
        (SHARES, with_header(banks=["bank-0"], shares=[b""]), "did not share its secrets"),
        (SHARES, with_header(banks=["bank-0", "bank-0"]), "names a bank twice"),
        (TRAIN, without_lanes, "masked lanes of 32 bits"),
        (TRAIN, with_float_lanes, "masked lanes of 32 bits"),
        (TRAIN, with_fewer_lanes, "masked lanes of 32 bits"),
        (TRAIN, with_header(round=7), "another round"),
    ],
)
def test_a_bank_that_breaks_the_protocol_is_left_out(
    warm, parts, tmp_path, absent, step, change, cause
) -> None:
    out, _ = run(warm, parts, tmp_path / "secret", step=step, change=change, adapter="fedit")
    assert_near(out, absent)
    assert any(cause in line and line.startswith(CULPRIT) for line in causes(out))


def test_below_the_threshold_the_round_is_rolled_back(warm, parts, tmp_path) -> None:
    two = dict(list(parts.items())[:2])
    with pytest.raises(FinLoraError, match="No round changed the adapter"):
        run(warm, two, tmp_path, step=TRAIN, banks=2)
    (log,) = tmp_path.rglob("audit.jsonl")
    assert "1 banks sent masked lanes, 2 are needed" in log.read_text()


PROVED = {**ONE_ROUND, "proofs": True, "max_norm": 3.0, "targets": ("q_proj",)}
"""A run with proofs whose circuit is small."""


@pytest.fixture
def ezkl():
    for library in ("onnx", "py_ecc"):
        pytest.importorskip(library)
    return pytest.importorskip("ezkl")


def test_a_run_with_proofs_gives_the_same_expert(ezkl, warm, parts, tmp_path) -> None:
    plain, _ = run(warm, parts, tmp_path / "plain", secure_aggregation=False, targets=("q_proj",))
    proved, sent = run(warm, parts, tmp_path / "proved", **PROVED)
    assert_near(proved, plain, tolerance=CORE_TOLERANCE)
    assert causes(proved) == []
    answers = [content for kind, content in sent if kind == TRAIN]
    assert len(answers) == 3
    assert all(len(content.header[PROOF]) <= 4000 and content.header[SIGNATURE] for content in answers)


def flipped(content: Content) -> Content:
    proof = bytearray(content.header[PROOF])
    proof[1000] ^= 1
    return Content({**content.header, PROOF: bytes(proof)}, content.tensors)


def without_proof(content: Content) -> Content:
    return Content({name: value for name, value in content.header.items() if name != PROOF}, content.tensors)


@pytest.mark.parametrize(
    ("change", "cause"), [(flipped, "not signed by this bank"), (without_proof, "no bytes proof")]
)
def test_a_bank_without_a_valid_proof_is_left_out(ezkl, warm, parts, tmp_path, change, cause) -> None:
    plain, _ = run(
        warm,
        parts,
        tmp_path / "plain",
        step=TRAIN,
        secure_aggregation=False,
        targets=("q_proj",),
    )
    out, _ = run(warm, parts, tmp_path / "proved", step=TRAIN, change=change, **PROVED)
    assert_near(out, plain, tolerance=CORE_TOLERANCE)
    assert rounds_of(out)[0]["banks"] == ["bank-0", "bank-2"]
    assert any(cause in line and line.startswith(CULPRIT) for line in causes(out))


def off_by_one(content: Content) -> Content:
    lanes = content.tensors[MASKED].copy()
    lanes[0:1] += np.int32(1) if lanes[0] < 2**31 - 1 else np.int32(-1)
    return Content(content.header, {MASKED: lanes})


def test_a_bank_that_masks_other_lanes_than_it_proved_changes_nothing(ezkl, warm, parts, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="No round changed the adapter"):
        run(warm, parts, tmp_path, step=TRAIN, change=off_by_one, **PROVED)
    (log,) = tmp_path.rglob("audit.jsonl")
    assert "The aggregate is not the sum of the updates that the banks proved." in log.read_text()


def test_a_server_killed_after_the_reveal_loses_that_round_alone(warm, parts, tmp_path, monkeypatch) -> None:
    """Asked again, the banks would have to reveal a second sum of the same updates; they do not."""
    calls = itertools.count(1)
    save_state = server_app.save_state

    def killed_in_the_first_round(*arguments: object) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        save_state(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(server_app, "save_state", killed_in_the_first_round)
        with pytest.raises(KeyboardInterrupt):
            run(warm, parts, tmp_path, rounds=2)
    out, _ = run(warm, parts, tmp_path, rounds=2)
    assert [entry["accepted"] for entry in rounds_of(out)] == [False, True]
    assert any("has revealed its shares of this round" in cause for cause in causes(out))
