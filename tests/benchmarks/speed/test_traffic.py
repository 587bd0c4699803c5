"""Bytes and multiplications of a decode step against a count by hand."""

import pytest
import torch

from finlora.benchmarks.speed.contenders import CONTENDERS
from finlora.benchmarks.speed.timing import Generations
from finlora.benchmarks.speed.traffic import TrafficCounter

FLOAT = 4
PROMPT, STEPS = 8, 4
# Width 64, 16 of it for keys and for values, 96 inside the MLP, 2 blocks, 97 tokens.
BLOCK_WEIGHTS = 2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 96
NORMS, EMBEDDING, ROTARY = 5 * 64, 64, 8
BASE = FLOAT * (2 * BLOCK_WEIGHTS + NORMS + EMBEDDING + ROTARY)
HEAD = FLOAT * 97 * 64
EXPERT = FLOAT * 2 * 2 * (2 * (64 + 64) + 2 * (64 + 16) + 3 * (64 + 96))
ROUTER = FLOAT * (64 + 1) * 2 * 7 * 8
# Before each step the cache holds the prompt and the tokens of earlier steps.
CACHE = FLOAT * 2 * 2 * 16 * sum(PROMPT + step for step in range(STEPS)) / STEPS


def traffic_of(name, workshop, *, batch=1, quantization="none"):
    """What a decode step of a contender reads and multiplies."""
    model = CONTENDERS[name].make(workshop, workshop.base(quantization))
    generations = Generations(model, workshop.prompt(batch, PROMPT), STEPS)
    generations.warm_up()
    return generations.traffic


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", (BASE, HEAD, 0, 0, CACHE)),
        ("peft_lora", (BASE, HEAD, EXPERT, 0, CACHE)),
        ("exact", (2 * BASE, HEAD, 8 * EXPERT, ROUTER, 2 * CACHE)),
        ("exact_top2", (2 * BASE, HEAD, 2 * EXPERT, ROUTER, 2 * CACHE)),
    ],
)
def test_bytes_are_those_counted_by_hand(name, expected, workshop):
    assert tuple(traffic_of(name, workshop).read_bytes.values()) == pytest.approx(expected, rel=0.01)


def test_base_is_exact_to_the_byte(workshop):
    assert tuple(traffic_of("base", workshop).read_bytes.values()) == (BASE, HEAD, 0, 0, CACHE)


def test_one_pass_reads_the_base_once_and_no_scaling_cache(workshop):
    read = traffic_of("prompt", workshop).read_bytes
    assert read["base"] == BASE
    assert read["router"] == 0
    assert CACHE <= read["cache"] < 1.6 * CACHE  # and the scalings that it keeps


def test_two_rows_read_weights_once_and_two_caches(workshop):
    read = traffic_of("base", workshop, batch=2).read_bytes
    assert read["base"] == BASE + FLOAT * EMBEDDING
    assert read["cache"] == 2 * CACHE


def test_a_step_of_the_base_multiplies_each_weight_once(workshop):
    keys = sum(PROMPT + step + 1 for step in range(STEPS)) / STEPS
    attention = 2 * 64 * keys
    assert traffic_of("base", workshop).flops / 2 == 2 * (BLOCK_WEIGHTS + attention) + 97 * 64


@pytest.mark.parametrize(("quantization", "bytes_a_weight"), [("int8", 1), ("nf4", 0.5)])
def test_quantized_weights_count_as_they_are_stored(quantization, bytes_a_weight, workshop):
    read = traffic_of("base", workshop, quantization=quantization).read_bytes
    constants = read["base"] - bytes_a_weight * 2 * BLOCK_WEIGHTS - FLOAT * (NORMS + EMBEDDING + ROTARY)
    assert 0 < constants < 0.35 * bytes_a_weight * 2 * BLOCK_WEIGHTS + 14 * 1200
    assert read["lm_head"] == HEAD


def test_nothing_counts_before_the_first_step_ends():
    """So a prefill is left out; what a step made counts only in later ones, and views never."""
    layer = torch.nn.Linear(4, 2, bias=False)
    with torch.no_grad(), TrafficCounter(layer) as counter:
        layer(torch.ones(1, 4))
        counter.end_step()
        hidden = layer(torch.ones(1, 4)).view(2, 1) * 3
        counter.end_step()
        layer(torch.ones(1, 4))
        hidden * 2
    read = counter.per_step(2).read_bytes
    assert (2 * read["base"], 2 * read["cache"]) == (2 * 4 * 2 * FLOAT, 2 * FLOAT)
