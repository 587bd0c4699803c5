"""A tiny shape and plan for the speed benchmark."""

import pytest

from finlora.benchmarks.speed.models import Workshop
from finlora.benchmarks.speed.settings import SpeedPlan, SpeedShape


@pytest.fixture(scope="session")
def tiny_shape() -> SpeedShape:
    """Two blocks of width 64, eight experts of rank 2, one head for keys and values."""
    return SpeedShape(
        hidden_size=64, layers=2, intermediate_size=96, heads=4, vocabulary=97, experts=8, rank=2
    )


@pytest.fixture(scope="session")
def tiny_plan() -> SpeedPlan:
    """A few tokens of everything."""
    return SpeedPlan(
        generation_prompts=(8,),
        generation_new=(4,),
        batches=(1, 2),
        prompts=(8,),
        decode_tokens=2,
        growth_experts=(1, 4),
        growth_ranks=(4,),
        growth_prompt=4,
        training_rows=1,
        training_tokens=6,
        training_answer=2,
        quantization_prompt=8,
        memory_prompt=8,
        memory_new=2,
        memory_repeats=1,
        machine_mebibytes=1,
        matrix_size=64,
    )


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_shape: SpeedShape) -> Workshop:
    """Makes tiny models; its files are shared by all tests."""
    return Workshop(tmp_path_factory.mktemp("speed_models"), tiny_shape)
