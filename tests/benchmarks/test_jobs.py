"""The plan of a run, and what makes the multi-task adapter a fair rival."""

import dataclasses
import pickle
from collections import Counter
from pathlib import Path

import pytest

from finlora.benchmarks.budgets import (
    BUDGETS,
    Budget,
    RouterPlan,
    with_everything,
    with_further,
    with_single_passes,
)
from finlora.benchmarks.comparison import Comparison
from finlora.benchmarks.jobs import plan_jobs
from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.multitask_data import multitask_examples, multitask_settings, sampled_examples
from finlora.benchmarks.run_config import RunConfig
from finlora.experts.errors import FinLoraError
from finlora.experts.settings import ExpertSettings
from finlora.experts.tasks import Example
from finlora.experts.tasks.suites import SUITES
from finlora.router.settings import XLoRASettings

TASKS = ("fpb", "finer", "headline")


@pytest.fixture
def config() -> RunConfig:
    """A run of three tasks and two router seeds."""
    return RunConfig(
        suite="embedded",
        tasks=TASKS,
        base="embedded",
        quantization="nf4",
        seed=0,
        router_seeds=(3, 4),
        resamples=10,
        budget=Budget(),
        data={},
    )


def test_the_plan_has_every_training_and_every_cell(config: RunConfig, tmp_path: Path):
    jobs = {job.name: job for job in plan_jobs(RunLayout(tmp_path), config)}
    trainings = {
        "multitask",
        "experts/fpb",
        "experts/finer",
        "experts/headline",
        "routers/xlora/3",
        "routers/xlora/4",
    }
    methods = [
        "base",
        *(f"expert/{task}" for task in TASKS),
        "uniform",
        "multitask",
        "xlora/3",
        "xlora/4",
    ]
    cells = {f"cells/{method}/{task}" for method in methods for task in TASKS}
    assert jobs.keys() == trainings | cells | {"scalings/3", "scalings/4", "mixture"}
    experts = {f"experts/{task}" for task in TASKS}
    assert set(jobs["routers/xlora/3"].needs) == experts
    assert set(jobs["cells/uniform/fpb"].needs) == experts
    assert jobs["cells/expert/fpb/finer"].needs == ("experts/fpb",)
    assert jobs["cells/multitask/fpb"].needs == ("multitask",)
    assert jobs["cells/xlora/4/fpb"].needs == ("routers/xlora/4",)
    assert jobs["cells/base/fpb"].needs == ()
    for job in jobs.values():
        assert not job.is_done()
        pickle.dumps(job.action)


def test_a_training_is_done_when_its_result_is_there_and_nothing_is_left_to_resume(
    config: RunConfig, tmp_path: Path
):
    job = {job.name: job for job in plan_jobs(RunLayout(tmp_path), config)}["experts/fpb"]
    folder = tmp_path / "experts" / "fpb"
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "run.json").touch()
    assert not job.is_done()
    (folder / "expert.json").touch()
    assert not job.is_done()
    (folder / "training" / "run.json").unlink()
    assert job.is_done()


def test_the_multi_task_recipe_keeps_the_scale_of_an_update():
    settings = ExpertSettings(rank=4, alpha=8, max_steps=10)
    multitask = multitask_settings(settings, 9)
    assert multitask.rank == 36
    assert multitask.alpha / multitask.rank == settings.alpha / settings.rank
    rslora = multitask_settings(dataclasses.replace(settings, method="rslora"), 9)
    assert rslora.alpha / rslora.rank**0.5 == pytest.approx(settings.alpha / settings.rank**0.5)


def test_the_multi_task_adapter_sees_each_task_as_often_as_its_expert_does():
    many = [Example(f"many {index}", "a") for index in range(50)]
    few = [Example(f"few {index}", "a") for index in range(7)]
    settings = ExpertSettings(max_steps=6, batch_size=5, gradient_accumulation=1)
    drawn = multitask_examples([(many, settings), (few, settings)], seed=0)
    counts = Counter(example.context for example in drawn)
    assert sum(counts[example.context] for example in many) == 30
    assert sum(counts[example.context] for example in few) == 30
    assert {counts[example.context] for example in few} == {4, 5}
    assert max(counts[example.context] for example in many) == 1
    assert multitask_settings(settings, 2).epochs == 1
    by_epochs = dataclasses.replace(settings, max_steps=None)
    assert multitask_examples([(many, by_epochs), (few, by_epochs)], seed=0) == [*many, *few]
    assert multitask_settings(by_epochs, 2).epochs == by_epochs.epochs


def test_every_suite_has_a_budget():
    assert BUDGETS.keys() >= SUITES.keys() - {"toy"}


def test_an_expert_with_steps_of_its_own_is_seen_as_often_in_the_multi_task_adapter():
    budget = Budget(expert=ExpertSettings(max_steps=2, batch_size=5), expert_steps={"many": 4})
    many, few = ([Example(f"{name} {index}", "a") for index in range(50)] for name in ("many", "few"))
    drawn = multitask_examples(
        [(many, budget.expert_settings("many")), (few, budget.expert_settings("few"))], seed=0
    )
    assert Counter(example.context.split()[0] for example in drawn) == {"many": 20, "few": 10}


def test_steps_for_one_expert_alone_are_refused():
    with pytest.raises(FinLoraError, match=r"expert_steps needs expert\.max_steps"):
        Budget(expert=ExpertSettings(max_steps=None), expert_steps={"fpb": 3})


def test_routers_without_the_one_compared_are_refused():
    with pytest.raises(FinLoraError, match="it needs xlora"):
        Budget(routers={"xlora_token": RouterPlan()})


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(FinLoraError, match=r"Budget\.test_examples must be at least 1"):
        Budget(test_examples=0)


def test_single_passes_have_a_trunk_for_each_place_of_the_base():
    plans = with_single_passes(BUDGETS["embedded"], depth=4).routers
    assert [plan.mode.block for plan in plans.values() if plan.mode.name == "trunk"] == [0, 1, 2, 3]
    assert {plan.mode.name for plan in plans.values()} == {"exact", "trunk", "previous", "prompt"}
    assert plans["prompt_top2"].router.top_k == 2


def test_leaving_a_task_out_trains_anew_all_that_learns_but_no_expert(config: RunConfig, tmp_path: Path):
    budget = dataclasses.replace(
        config.budget,
        further=("multitask_rank", "ties", "classifier", "lorahub"),
        protocols=("in_distribution", "leave_one_task_out", "reworded"),
        only_in_distribution=("multitask_rank",),
    )
    jobs = {
        job.name: job for job in plan_jobs(RunLayout(tmp_path), dataclasses.replace(config, budget=budget))
    }
    left_out = {name.removeprefix("without/fpb/") for name in jobs if name.startswith("without/fpb/")}
    assert left_out == {
        "merges/ties",
        "merges/lorahub/fpb",
        "routers/xlora/3",
        "routers/xlora/4",
        "cells/uniform/fpb",
        "cells/ties/fpb",
        "cells/lorahub/fpb",
        "cells/classifier",
        "cells/xlora/3/fpb",
        "cells/xlora/4/fpb",
    }
    router = jobs["without/fpb/routers/xlora/3"]
    assert set(router.needs) == {"experts/finer", "experts/headline"}
    rule = jobs["without/fpb/cells/classifier"]
    assert set(rule.needs) == {f"cells/expert/{task}/fpb" for task in TASKS}
    assert "asked/reworded/cells/expert/finer/fpb" in jobs["asked/reworded/cells/classifier"].needs
    assert jobs["asked/reworded/cells/xlora/3/fpb"].needs == ("routers/xlora/3",)
    assert [name for name in jobs if name.startswith("cells/base/")] == [
        f"cells/base/{task}" for task in TASKS
    ]
    for job in jobs.values():
        pickle.dumps(job.action)


def test_further_expert_seeds_train_everything_on_experts_of_their_own(config: RunConfig, tmp_path: Path):
    two = dataclasses.replace(config, more_expert_seeds=(7,))
    names = {job.name for job in plan_jobs(RunLayout(tmp_path), two)}
    second = {name.removeprefix("expert_seeds/7/") for name in names if name.startswith("expert_seeds/7/")}
    first = {name for name in names if not name.startswith("expert_seeds/")}
    on_the_base = {f"cells/base/{task}" for task in TASKS}
    assert second == first - on_the_base - {"mixture", "scalings/3", "scalings/4"}


def test_further_methods_and_protocols_join_those_of_the_budget():
    comparison = Comparison(
        further=("xlora_null", "ties", "xlora_wordings"),
        protocols=("reworded",),
        only_in_distribution=("multitask",),
        foreign_text=True,
    )
    before = BUDGETS["embedded"]
    budget = with_further(before, comparison)
    assert budget.routers.keys() == {*before.routers, "xlora_null", "xlora_wordings"}
    assert budget.routers["xlora_wordings"].wordings
    assert budget.routers["xlora_wordings"].router == budget.routers["xlora"].router == _shape(before)
    assert budget.routers["xlora_null"].router == dataclasses.replace(_shape(before), null_expert=True)
    assert budget.further == ("ties",)
    assert budget.protocols == ("in_distribution", "reworded")
    assert budget.only_in_distribution == (*before.only_in_distribution, "multitask")
    assert budget.foreign_text


def test_without_the_multi_task_adapter_nothing_of_it_is_trained(config: RunConfig, tmp_path: Path):
    names = {job.name for job in plan_jobs(RunLayout(tmp_path), config)}
    smaller = dataclasses.replace(config, budget=dataclasses.replace(config.budget, multitask=False))
    left = {job.name for job in plan_jobs(RunLayout(tmp_path), smaller)}
    assert names - left == {"multitask", *(f"cells/multitask/{task}" for task in TASKS)}


def test_an_unknown_further_method_is_refused():
    with pytest.raises(FinLoraError, match="--further names magic; known are few_shot, "):
        with_further(BUDGETS["embedded"], Comparison(further=("magic",)))


def _shape(budget: Budget) -> XLoRASettings:
    return budget.routers["xlora"].router


def test_everything_can_be_planned_on_every_suite(tmp_path: Path):
    for name, budget in BUDGETS.items():
        config = RunConfig(
            suite=name,
            tasks=SUITES[name].tasks,
            base="embedded",
            quantization="nf4",
            seed=0,
            router_seeds=(0,),
            resamples=10,
            budget=with_everything(budget),
            data={},
        )
        known: set[str] = set()
        for job in plan_jobs(RunLayout(tmp_path), config):
            assert known.issuperset(job.needs), job.name
            known.add(job.name)
        assert "without/finer/routers/xlora/0" in known
        assert not any("without" in job and "categories" in job for job in known)


def test_a_sampled_multi_task_adapter_sees_as_much_but_more_of_what_there_is_more_of():
    many = [Example(f"many {index}", "a") for index in range(90)]
    few = [Example(f"few {index}", "a") for index in range(10)]
    settings = ExpertSettings(max_steps=8, batch_size=5, gradient_accumulation=1)
    drawn = sampled_examples([(many, settings), (few, settings)], seed=0)
    counts = Counter(example.context.split()[0] for example in drawn)
    # The square roots of 90 and 10 are as 3 to 1.
    assert counts == {"many": 60, "few": 20}
    assert drawn == sampled_examples([(many, settings), (few, settings)], seed=0)
