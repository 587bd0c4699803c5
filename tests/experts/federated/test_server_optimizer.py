"""The server's Adam is PyTorch's, for each tensor that a round trains."""

import numpy as np
import pytest
import torch

from finlora.experts.federated.server_optimizer import FIRST_DECAY, SECOND_DECAY, adam_step


def test_steps_are_those_of_torch() -> None:
    """Over all rounds, with the step size falling along the same cosine."""
    random = np.random.default_rng(0)
    current = {"a": random.normal(size=(3, 4)).astype(np.float32)}
    parameter = torch.nn.Parameter(torch.from_numpy(current["a"].copy()))
    optimizer = torch.optim.Adam([parameter], lr=1.0, betas=(FIRST_DECAY, SECOND_DECAY))
    moments: dict[str, np.ndarray] = {}
    for number, rate in enumerate([0.01, 0.008681981, 0.0055, 0.002318019, 0.001], start=1):
        difference = random.normal(size=(3, 4)).astype(np.float32)
        combined = {"a": current["a"] + difference}
        current, moments = adam_step(
            current, combined, moments, ["a"], learning_rate=0.01, round_number=number, rounds=5
        )
        parameter.grad = torch.from_numpy(-difference)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert current["a"] == pytest.approx(parameter.detach().numpy(), abs=1e-5)
        assert current["a"].dtype == np.float32


def test_what_a_round_does_not_train_stays() -> None:
    """Adapters that train A and B in turn: the other one neither moves nor ages."""
    current = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    combined = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    following, moments = adam_step(current, combined, {}, ["a"], learning_rate=0.1, round_number=1, rounds=1)
    assert following["a"] == pytest.approx([0.1, 0.1])
    assert (following["b"] == current["b"]).all()
    assert set(moments) == {"first:a", "second:a", "count:a"}
