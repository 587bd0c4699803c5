"""Settings of router training: what is refused, and how tasks are drawn."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.router.settings import RouterTrainingSettings
from finlora.router.train import example_weights


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task_temperature": 0.0}, "task_temperature must be above 0"),
        ({"label_weight": -1.0}, "label_weight must be at least 0"),
        ({"balance_weight": -1.0}, "balance_weight must be at least 0"),
    ],
)
def test_settings_that_train_no_router_are_refused(changes, sentence) -> None:
    with pytest.raises(FinLoraError, match=sentence):
        RouterTrainingSettings(**changes)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (2.0, 0.75), (float("inf"), 0.5)])
def test_temperature_sets_how_often_a_large_task_is_drawn(temperature, share) -> None:
    weights = example_weights([0] * 90 + [1] * 10, temperature)
    assert sum(weights[:90]) / sum(weights) == pytest.approx(share)
