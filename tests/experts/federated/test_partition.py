"""Partitions: nothing lost, no company in two banks, uneven when alpha is low, the same every time."""

from collections import Counter

import numpy as np
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.partition import by_dirichlet, one_task_each
from finlora.experts.tasks.task import Example


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    return {
        task: [
            Example(f"{task} {company} {i}", "x", f"{task} {company}")
            for company in range(40)
            for i in range(5)
        ]
        for task in ("tags", "value", "formula", "calc")
    }


def test_one_task_each_is_finlora_s_split(examples) -> None:
    parts = one_task_each(examples)
    assert list(parts) == ["bank-0", "bank-1", "bank-2", "bank-3"]
    assert list(parts.values()) == list(examples.values())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 10])
def test_every_example_is_in_one_bank_and_every_company_too(examples, alpha) -> None:
    parts = by_dirichlet(examples, 5, alpha, seed=1)
    held = [example for part in parts.values() for example in part]
    assert Counter(held) == Counter(example for rows in examples.values() for example in rows)
    companies = [{example.group for example in part} for part in parts.values()]
    assert sum(map(len, companies)) == len(set().union(*companies))
    assert min(map(len, parts.values())) >= 16


def test_examples_without_a_company_are_divided_one_by_one() -> None:
    parts = by_dirichlet({"t": [Example(str(i), "x") for i in range(200)]}, 4, 10, seed=0)
    assert sum(map(len, parts.values())) == 200
    assert min(map(len, parts.values())) >= 16


def test_low_alpha_is_uneven_and_high_alpha_is_not(examples) -> None:
    def spread(alpha: float) -> float:
        """Mean deviation of the banks' shares of a task from equal shares."""
        deviations = []
        for seed in range(10):
            parts = by_dirichlet(examples, 5, alpha, seed=seed)
            for task in examples:
                counts = [sum(e.context.startswith(task) for e in part) for part in parts.values()]
                deviations.append(np.abs(np.array(counts) / 200 - 0.2).mean())
        return float(np.mean(deviations))

    assert spread(0.1) > 2 * spread(10)
    assert spread(0.1) > 0.15
    assert spread(1000) < 0.02


def test_same_seed_same_parts(examples) -> None:
    assert by_dirichlet(examples, 5, 0.5, seed=4) == by_dirichlet(examples, 5, 0.5, seed=4)
    assert by_dirichlet(examples, 5, 0.5, seed=4) != by_dirichlet(examples, 5, 0.5, seed=5)


def test_impossible_partitions_are_one_sentence(examples) -> None:
    with pytest.raises(FinLoraError, match="alpha must be above 0 and finite, got 0"):
        by_dirichlet(examples, 5, 0.0, seed=0)
    with pytest.raises(FinLoraError, match="at least 1 bank, got 0"):
        by_dirichlet(examples, 0, 1.0, seed=0)
    with pytest.raises(FinLoraError, match="800 examples are too few for 100 banks"):
        by_dirichlet(examples, 100, 1.0, seed=0)
