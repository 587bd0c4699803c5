"""Turns, and the clock of a generation's steps."""

import pytest
import torch

from finlora.benchmarks.speed import decode, generation
from finlora.benchmarks.speed.contenders import CONTENDERS, cached
from finlora.benchmarks.speed.machine import Machine
from finlora.benchmarks.speed.plan import Bench
from finlora.benchmarks.speed.settings import SpeedPlan, SpeedShape
from finlora.benchmarks.speed.timing import Generations, take_turns
from finlora.experts.errors import FinLoraError


def test_contenders_take_turns():
    calls = []
    work = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}
    assert take_turns(work, 3, patience=10, label="") == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert calls == ["a", "b"] * 3


def test_a_slow_contender_is_timed_at_least_twice_but_not_further():
    work = {"slow": lambda: 60.0, "fast": lambda: 1.0}
    times = take_turns(work, 5, patience=100, label="")
    assert {name: len(seconds) for name, seconds in times.items()} == {"slow": 2, "fast": 5}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", cached())
def test_every_contender_with_a_cache_is_clocked(name, batch, workshop):
    """Whether it shows transformers' clock the whole batch or one sequence at a time."""
    one = Generations(CONTENDERS[name].make(workshop, workshop.base()), workshop.prompt(batch, 6), 3)
    total = one.run()
    assert one.prefill_seconds[0] > 0
    assert one.decode_seconds[0] > 0
    assert one.prefill_seconds[0] + one.decode_seconds[0] == pytest.approx(total)


def test_a_generation_that_ends_early_is_refused(workshop):
    model = workshop.base().model
    prompt = workshop.prompt(1, 6)
    model.generation_config.eos_token_id = int(model(prompt).logits[0, -1].argmax())
    with pytest.raises((FinLoraError, ValueError)):
        Generations(model, prompt, 3).run()


def test_different_tokens_are_refused_where_they_can_be_the_same():
    tokens = {name: [1, 2, 3] for name in CONTENDERS}
    agreement = generation.agreeing_tokens(tokens, may_round_apart=False)
    assert agreement["exact"] == {"same_tokens_as": "peft_xlora", "agreeing_tokens": 3}
    tokens["exact"] = [1, 2, 9]
    with pytest.raises(FinLoraError, match="different tokens, from new token 3 on"):
        generation.agreeing_tokens(tokens, may_round_apart=False)
    apart = generation.agreeing_tokens(tokens, may_round_apart=True)
    assert apart["exact"]["agreeing_tokens"] == 2


def test_what_takes_too_long_or_too_much_memory_is_left_out(workshop, monkeypatch):
    shape, plan = workshop.shape, SpeedPlan(most_prefill_seconds=2.0)
    flops = decode.prefill_flops(shape, 2, 100)
    bench = Bench(workshop, plan, 1, Machine(1.0, flops / 2.5))
    assert "at least 2.5 s" in str(decode.why_not(bench, 2, 100))
    assert decode.why_not(bench, 1, 100) is None
    monkeypatch.setattr(decode, "free_memory", lambda: 1000)
    assert "GiB are free" in str(decode.why_not(bench, 1, 100))
    (record,) = decode.measure(bench, batch=2, prompt_tokens=100)
    assert (record["quantity"], record["batch"]) == ("left out", 2)


def test_operations_of_a_prefill_by_hand():
    shape = SpeedShape(hidden_size=8, layers=3, intermediate_size=5, heads=4)
    weights = 8 * 8 + 8 * 2 + 8 * 2 + 8 * 8 + 3 * 8 * 5
    # Scores and values of ten tokens, each with half of them.
    attention = 2 * 8 * 5
    assert decode.prefill_flops(shape, 2, 10) == 2 * 2 * 10 * 3 * (weights + attention)


def test_prompts_are_the_same_for_all(workshop):
    assert torch.equal(workshop.prompt(2, 5), workshop.prompt(2, 5))
