"""Decode steps of trained mixtures on real questions: what modes gain where proposals are not random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from ...experts.base_model import EMBEDDED_BASE, Base, load_base
from ...experts.encoding import encode_prompts
from ...experts.tasks import get_task
from ...experts.tasks.suites import get_suite
from ...moe.bank import ExpertBank
from ...moe.checkpoint import read_mixture
from ...moe.mixture import MixtureForCausalLM
from ...moe.mode import Mode
from ...moe.routing import ConstantRouter
from ...router import load_mixture
from .contenders import REFERENCE
from .plan import Bench, Record, Unit, timed
from .settings import SpeedPlan
from .timing import StepClock, generate, proposals_of, take_turns

DRAFT = Mode(name="draft")


def units(plan: SpeedPlan) -> list[Unit]:
    """One unit a quantization and task of the first mixture's experts; none without mixtures."""
    if not plan.mixtures:
        return []
    return [
        Unit(f"{task}, {quantization}", partial(measure, task=task, quantization=quantization))
        for quantization in plan.answers_on
        for task in read_mixture(plan.mixtures[0]).experts
    ]


def measure(bench: Bench, *, task: str, quantization: str) -> list[Record]:
    """Time the answers of every mixture to test questions of one task, and those of the task's own expert.

    Every contender generates as many tokens as the first mixture's answers have.
    """
    plan = bench.plan
    base = load_base(read_mixture(plan.mixtures[0]).base_name or EMBEDDED_BASE, quantization)
    models = trained_models(plan, base, task)
    examples = get_suite(plan.suite).examples(task, "test")[: plan.questions]
    prompts = [
        torch.tensor([ids], device=base.model.device)
        for ids in encode_prompts(base.tokenizer, [one.context for one in examples])
    ]
    exact, limit = next(iter(models.values())), get_task(task).max_new_tokens
    lengths = [answer_length(exact, prompt, limit) for prompt in prompts]
    for model in models.values():
        # All do the same work, wherever each would have ended its answer.
        model.generation_config.eos_token_id = None
    counts: dict[str, dict[str, int]] = {name: {} for name in models}

    def run(name: str, model: Any) -> float:
        seconds = 0.0
        found: dict[str, int] = defaultdict(int)
        for prompt, length in zip(prompts, lengths, strict=True):
            clock = StepClock()
            generate(model, prompt, length, clock)
            seconds += clock.stamps[-1][0] - clock.stamps[0][0]
            for key, number in proposals_of(model).items():
                found[key] += number
        counts[name] = dict(found)
        return seconds

    work = {name: partial(run, name, model) for name, model in models.items()}
    for do in tqdm(work.values(), desc="warm-up", unit="model", leave=False):
        do()
    times = take_turns(work, bench.repeats, patience=plan.patience_seconds, label=f"answers, {task}")
    about = {"task": task, "questions": len(prompts), "tokens": sum(lengths) - len(lengths)}
    about |= {"quantization": quantization}
    return [timed("answers", name, seconds, **about, **counts[name]) for name, seconds in times.items()]


def trained_models(plan: SpeedPlan, base: Base, task: str) -> Mapping[str, Any]:
    """The mixtures by their modes, those of mode exact also in mode draft, and the task's expert alone."""
    models: dict[str, Any] = {}
    for folder in plan.mixtures:
        mixture = load_mixture(folder, base=base)
        top_k = "" if mixture.router.most_chosen is None else f"_top{mixture.router.most_chosen}"
        models[mixture.mode.name + top_k] = mixture
        if mixture.mode.name == "exact":
            models[f"draft{top_k}"] = mixture.in_mode(DRAFT)
    bank = ExpertBank.from_folders({task: read_mixture(plan.mixtures[0]).experts[task]}, base)
    models[REFERENCE] = MixtureForCausalLM.build(base, bank, ConstantRouter.one_hot(0, expert_count=1))
    return models


def answer_length(model: Any, prompt: torch.Tensor, limit: int) -> int:
    """Number of tokens of an answer, its end included, but at least two, so that there is a step to time."""
    made = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=limit,
        do_sample=False,
    )
    return max(2, made.shape[1] - prompt.shape[1])
