"""Whole runs in one process: what comes out, what stays, and what an interruption costs."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("flwr")

from finlora.experts.adapter import read_expert
from finlora.experts.encoding import encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.federated import server_app
from finlora.experts.federated.adapters import FederatedAdapter
from finlora.experts.federated.private_training import LocalTraining, train_locally
from finlora.experts.federated.randomness import Randomness
from finlora.experts.federated.server_app import Server, ServerJob
from finlora.experts.federated.settings import AdapterKind
from finlora.experts.federated.simulation import simulate
from finlora.router.settings import XLoRASettings
from finlora.router.train import new_mixture

from .conftest import SETTINGS

MOMENTS = (
    "before the first round",
    "after training",
    "before the state is saved",
    "after a round",
    "at the end",
)


def job_of(out: Path, **changes: object) -> ServerJob:
    return ServerJob(dataclasses.replace(SETTINGS, **changes), out, "sums")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same_weights(actual: Path, expected: Path) -> None:
    torch.testing.assert_close(weights(actual), weights(expected), rtol=0, atol=0)


@pytest.mark.parametrize("kind", get_args(AdapterKind))
def test_every_kind_gives_an_ordinary_expert_folder(warm, parts, tmp_path, kind) -> None:
    out = simulate(job_of(tmp_path / "out", adapter=kind), parts, warm, tmp_path / "banks")
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "audit.jsonl",
        "expert.json",
    ]
    expert = read_expert(out)
    expert.check_fits(warm.base)
    assert expert.metadata is not None
    rounds = expert.metadata["federated"]["rounds"]
    assert [entry["banks"] for entry in rounds] == [["bank-0", "bank-1", "bank-2"]] * 3
    assert all(entry["accepted"] for entry in rounds)
    assert (out / "audit.jsonl").read_text() == ""
    moved = {name: not torch.equal(value, torch.zeros_like(value)) for name, value in weights(out).items()}
    assert all(moved[name] for name in moved if "lora_A" in name or kind != "fedsa")
    for bank in parts:
        (own,) = (tmp_path / "banks" / bank).glob("*/expert")
        assert any(value.any() for name, value in weights(own).items() if "lora_B" in name)
        if kind != "fedsa":
            assert_same_weights(own, out)


def test_result_is_that_of_the_obvious_loop(warm, base, parts, tmp_path) -> None:
    """Without messages, checks and state: each bank trains from the mean of the round before."""
    out = simulate(job_of(tmp_path / "out"), parts, warm, tmp_path / "banks")
    adapter = FederatedAdapter(base, SETTINGS)
    current = adapter.read(adapter.all_shared())
    for number in (1, 2, 3):
        updates = {}
        for bank, examples in parts.items():
            adapter.write(adapter.initial)
            adapter.write(current)
            training = LocalTraining(steps=2, batch_size=4, learning_rate=5e-3).in_round(number - 1, 3)
            rows = encode_examples(base.tokenizer, examples)
            seed = Randomness.seeded(f"3 {bank} {number}".encode())
            updates[bank] = train_locally(adapter.model, rows, training, pad_id=2, randomness=seed).update
        current = {
            name: values + np.mean([updates[bank][name].astype(np.float64) for bank in sorted(parts)], axis=0)
            for name, values in current.items()
        }
    adapter.write({name: values.astype(np.float32) for name, values in current.items()})
    expected = adapter.lora_factors()
    adapter.remove()
    for layer, (down, up) in expected.items():
        found = weights(out)
        torch.testing.assert_close(found[f"base_model.model.{layer}.lora_A.weight"], down)
        torch.testing.assert_close(found[f"base_model.model.{layer}.lora_B.weight"], up, atol=1e-6, rtol=1e-5)


def test_same_seed_same_expert_and_another_seed_another(warm, parts, tmp_path) -> None:
    first = simulate(job_of(tmp_path / "1"), parts, warm, tmp_path / "banks-1")
    assert_same_weights(simulate(job_of(tmp_path / "2"), parts, warm, tmp_path / "banks-2"), first)
    other = simulate(job_of(tmp_path / "3", seed=4), parts, warm, tmp_path / "banks-3")
    assert not all(torch.equal(value, weights(first)[name]) for name, value in weights(other).items())


@pytest.mark.parametrize("kind", ["ffa", "alternating", "fedsa"])
@pytest.mark.parametrize(
    "moment",
    ["before the first round", "after training", "before the state is saved", "after a round", "at the end"],
)
def test_server_killed_at_any_moment_resumes_to_the_same_expert(
    warm, parts, tmp_path, monkeypatch, kind, moment
) -> None:
    unbroken = simulate(job_of(tmp_path / "unbroken", adapter=kind), parts, warm, tmp_path / "banks-1")
    broken = job_of(tmp_path / "broken", adapter=kind)
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(KeyboardInterrupt):
            simulate(broken, parts, warm, tmp_path / "banks-2")
    assert not (broken.out / "expert.json").exists()
    assert_same_weights(simulate(broken, parts, warm, tmp_path / "banks-2"), unbroken)
    for bank in parts:
        folders = [next((tmp_path / banks / bank).glob("*/expert")) for banks in ("banks-1", "banks-2")]
        assert_same_weights(*folders)


def kill_at(patch: pytest.MonkeyPatch, moment: str) -> None:
    """Interrupt the server at the named moment, in its second round where there are several."""
    calls = itertools.count(1)

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    def second(function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
        def stopping(*arguments: object) -> Any:
            is_second = next(calls) == 2
            if is_second and not after:
                stop()
            result = function(*arguments)
            return stop() if is_second else result

        return stopping

    match moment:
        case "before the first round":
            patch.setattr(Server, "run_round", stop)
        case "after training":
            patch.setattr(server_app, "combine", second(server_app.combine))
        case "before the state is saved":
            # The first state is saved before the first round.
            calls = itertools.count(0)
            patch.setattr(server_app, "save_state", second(server_app.save_state))
        case "after a round":
            patch.setattr(Server, "run_round", second(Server.run_round, after=True))
        case _:
            patch.setattr(server_app, "write_expert", stop)


def test_finished_expert_is_never_overwritten_and_another_run_not_resumed(
    warm, parts, tmp_path, monkeypatch
) -> None:
    job = job_of(tmp_path / "out")
    with monkeypatch.context() as patch:
        kill_at(patch, "after a round")
        with pytest.raises(KeyboardInterrupt):
            simulate(job, parts, warm, tmp_path / "banks")
    with pytest.raises(FinLoraError, match="holds an unfinished run with federated"):
        simulate(job_of(tmp_path / "out", rank=8), parts, warm, tmp_path / "banks")
    simulate(job, parts, warm, tmp_path / "banks")
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        simulate(job, parts, warm, tmp_path / "banks")


def test_base_is_as_it_was_afterwards(warm, base, parts, tmp_path) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    simulate(job_of(tmp_path / "out"), parts, warm, tmp_path / "banks")
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_public_loss_falls_and_bytes_are_those_of_the_manifest(warm, parts, tmp_path) -> None:
    public = [example for examples in parts.values() for example in examples[:3]]
    settings = dataclasses.replace(SETTINGS, rounds=4, learning_rate=2e-2)
    out = simulate(ServerJob(settings, tmp_path / "out", "sums", public), parts, warm, tmp_path / "banks")
    rounds = json.loads((out / "expert.json").read_text())["federated"]["rounds"]
    assert [entry["accepted"] for entry in rounds] == [True] * 4
    assert {entry["bytes_up"] for entry in rounds} == {3 * 4 * 2 * 4 * (32 + 16 + 32)}


def test_expert_joins_a_mixture(warm, base, parts, tmp_path) -> None:
    folders = {
        f"sums {kind}": simulate(
            job_of(tmp_path / kind, adapter=kind), parts, warm, tmp_path / f"banks-{kind}"
        )
        for kind in ("ffa", "core")
    }
    mixture = new_mixture(base, folders, XLoRASettings(depth=1), seed=0)
    assert list(mixture.bank.expert_names) == list(folders)
    ids = torch.arange(3, 13).view(1, 10)
    plain = base.model(input_ids=ids).logits
    assert not torch.allclose(mixture(input_ids=ids).logits, plain, atol=1e-6)
