"""Constant scalings and the check of any scalings."""

import pytest
import torch

from finlora.experts.errors import FinLoraError
from finlora.moe.routing import ConstantRouter, check_scalings_fit


def test_one_hot_and_uniform_weights() -> None:
    assert ConstantRouter.one_hot(1, expert_count=3).weights.tolist() == [[0, 1, 0]]
    assert ConstantRouter.uniform(expert_count=4).weights.tolist() == [[0.25] * 4]


def test_weights_may_differ_by_module() -> None:
    router = ConstantRouter([[1.0, 0.0], [0.5, 0.5]])
    assert router(torch.zeros(2, 3, 8)).shape == (1, 1, 2, 2)
    assert not list(router.parameters())


def test_settings_make_the_same_router() -> None:
    router = ConstantRouter(torch.tensor([0.25, 0.75]))
    again = ConstantRouter.from_settings(router.settings_as_dict(), d_model=8, module_count=5, expert_count=2)
    assert torch.equal(again.weights, router.weights)


@pytest.mark.parametrize("weights", [[], [float("nan"), 1.0], torch.zeros(1, 2, 3)], ids=str)
def test_unusable_weights_are_refused(weights) -> None:
    with pytest.raises(FinLoraError, match="Constant scalings of shape"):
        ConstantRouter(weights)


def test_unknown_expert_and_empty_bank_are_refused() -> None:
    with pytest.raises(FinLoraError, match="no expert number 2; the bank has 0 to 1"):
        ConstantRouter.one_hot(2, expert_count=2)
    with pytest.raises(FinLoraError, match="at least one expert, got 0"):
        ConstantRouter.uniform(expert_count=0)


def test_settings_for_another_bank_are_refused() -> None:
    sizes = {"d_model": 8, "module_count": 5}
    with pytest.raises(FinLoraError, match="for 1 modules and 2 experts do not fit"):
        ConstantRouter.from_settings({"weights": [[1.0, 0.0]]}, **sizes, expert_count=3)
    with pytest.raises(FinLoraError, match="has the setting weights only"):
        ConstantRouter.from_settings({"depth": 1}, **sizes, expert_count=3)


def test_scalings_for_other_modules_are_refused() -> None:
    check_scalings_fit(torch.zeros(2, 3, 5, 4), module_count=5, expert_count=4)
    with pytest.raises(FinLoraError, match="for 4 modules and 4 experts"):
        check_scalings_fit(torch.zeros(2, 3, 4, 4), module_count=5, expert_count=4)
