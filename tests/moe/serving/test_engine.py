"""A mixed batch answers as each model alone does."""

import pytest

from finlora.moe.mode import Mode

from .conftest import greedy, read_all, request

SETS = ({"e0": 0.7, "e1": 0.3}, {"e2": 0.5, "e5": 0.25, "e6": -0.4}, {"e7": 1.5})


def test_a_mixed_batch_answers_as_each_model_alone(make_engine, make_mixture, alone, make_base, make_prompts):
    mixtures = {
        "exact": make_mixture("exact", ["e0", "e1", "e2"]),
        "looking back": make_mixture("looking back", ["e3", "e1"], context_width=8, seed=1),
        "trunk": make_mixture("trunk", ["e4", "e5", "e6", "e7"], mode=Mode(name="trunk", block=1), seed=2),
    }
    models = {"base": make_base().model} | mixtures
    models |= {f"e{i}": alone({f"e{i}": 1.0}) for i in range(8)}
    choices = [*models, *SETS]
    prompts = make_prompts(64)
    engine = make_engine(max_requests=64)
    chosen = [choices[i % len(choices)] for i in range(64)]
    tickets = [engine.submit(request(prompt, one)) for prompt, one in zip(prompts, chosen, strict=True)]
    answers = [read_all(ticket)[0] for ticket in tickets]
    for prompt, one, answer in zip(prompts, chosen, answers, strict=True):
        model = models[one] if isinstance(one, str) else alone(one)
        assert answer == greedy(model, prompt, 12), one
    assert engine.state().running == engine.state().queued == 0


@pytest.mark.parametrize("settings", [{"max_batch_tokens": 16}, {"page_tokens": 4, "slice_width": 4}])
def test_sizes_do_not_change_answers(make_engine, alone, make_prompts, settings):
    engine = make_engine(**settings)
    tickets = [engine.submit(request(prompt, "e1")) for prompt in make_prompts(6)]
    for prompt, ticket in zip(make_prompts(6), tickets, strict=True):
        assert read_all(ticket)[0] == greedy(alone({"e1": 1.0}), prompt, 12)
