"""The gate: what may not reach the global adapter, and that its sentences hold no values."""

import math

import numpy as np
import pytest

from finlora.experts.federated.gate import Gate, GateError

CURRENT = {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}


def changed(**tensors) -> dict[str, np.ndarray]:
    return {**CURRENT, **tensors}


def test_an_update_at_the_norm_passes_and_one_above_does_not() -> None:
    gate = Gate(max_norm=5.0)
    gate.check_update({"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)})
    with pytest.raises(GateError, match="longer than the norm of 5"):
        gate.check_update({"a": np.array([3.0], np.float32), "b": np.array([4.001], np.float32)})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_no_number_hides_from_the_norm(value) -> None:
    with pytest.raises(GateError, match="longer"):
        Gate(max_norm=5.0).check_update({"a": np.full(3, value, np.float32)})


@pytest.mark.parametrize(
    ("candidate", "fault"),
    [
        ({"a": CURRENT["a"]}, "other tensors"),
        (changed(c=CURRENT["b"]), "other tensors"),
        (changed(a=np.zeros((3, 2), np.float32)), "shape or type"),
        (changed(b=np.ones(4, np.float64)), "shape or type"),
        (changed(b=np.array([1, 1, math.nan, 1], np.float32)), "not finite"),
        (changed(b=np.array([1, 1, math.inf, 1], np.float32)), "not finite"),
    ],
)
def test_a_candidate_that_is_no_adapter_is_refused(candidate, fault) -> None:
    with pytest.raises(GateError, match=fault):
        Gate(max_norm=1.0).check_candidate(CURRENT, candidate)


@pytest.mark.parametrize(("loss", "passes"), [(1.0, True), (2.09, True), (2.11, False), (math.nan, False)])
def test_a_candidate_may_be_a_little_worse_on_public_examples_but_not_more(loss, passes) -> None:
    losses = {1.0: 2.0, 7.0: loss}
    gate = Gate(max_norm=1.0, loss=lambda tensors: losses[float(tensors["b"][0])], tolerance=0.05)
    candidate = changed(b=np.full(4, 7.0, np.float32))
    if passes:
        gate.check_candidate(CURRENT, candidate)
    else:
        with pytest.raises(GateError, match="public examples") as caught:
            gate.check_candidate(CURRENT, candidate)
        assert "7" not in str(caught.value)


def test_the_loss_in_force_is_computed_once() -> None:
    asked = []

    def loss(tensors) -> float:
        asked.append(float(tensors["b"][0]))
        return 1.0

    gate = Gate(max_norm=1.0, loss=loss)
    second, third = (changed(b=np.full(4, value, np.float32)) for value in (2.0, 3.0))
    gate.check_candidate(CURRENT, second)
    gate.check_candidate(second, third)
    assert asked == [1.0, 2.0, 3.0]


def test_after_a_roll_back_the_candidate_is_not_taken_for_the_adapter_in_force() -> None:
    losses = {1.0: 1.0, 2.0: 9.0, 3.0: 1.5}
    gate = Gate(max_norm=1.0, loss=lambda tensors: losses[float(tensors["b"][0])])
    for value in (2.0, 3.0):
        with pytest.raises(GateError):
            gate.check_candidate(CURRENT, changed(b=np.full(4, value, np.float32)))
