"""Controls of notebooks, used without a browser."""

import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.methods import make_methods
from finlora.benchmarks.why.explore import answer_with_scalings
from finlora.benchmarks.why.widgets import error_browser, prompt_explorer, scaling_sliders
from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, write_examples
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter

NAMES = ("finer", "headline")


@pytest.fixture
def ipywidgets() -> Any:
    """The library, or no test."""
    return pytest.importorskip("ipywidgets", reason="needs ipywidgets: pip install -e .[notebooks]")


@pytest.fixture
def mixture(make_base: Callable[..., Base], make_expert: Callable[..., Path]) -> MixtureForCausalLM:
    """Two random experts, the first alone in use."""
    base = make_base()
    bank = ExpertBank.from_folders(
        {name: make_expert(name, seed=seed) for seed, name in enumerate(NAMES)}, base
    )
    return MixtureForCausalLM.build(base, bank, ConstantRouter.one_hot(0, expert_count=2))


@pytest.mark.usefixtures("ipywidgets")
def test_sliders_begin_at_the_router_and_change_the_answer(mixture: MixtureForCausalLM):
    box = scaling_sliders(mixture, "What is it?", max_new_tokens=5)
    *sliders, shown = box.children
    assert [(slider.description, slider.value) for slider in sliders] == [("finer", 1.0), ("headline", 0.0)]
    with_router, with_sliders = shown.value.split("<br>")[:2]
    assert with_router.split(":</span>")[1] == with_sliders.split(":</span>")[1]
    sliders[0].value, sliders[1].value = 0.0, 1.0
    other = answer_with_scalings(mixture, "What is it?", {"headline": 1.0}, max_new_tokens=5)
    assert other != answer_with_scalings(mixture, "What is it?", {"finer": 1.0}, max_new_tokens=5)
    assert shown.value != f"{with_router}<br>{with_sliders}<br>"


def drawn_text(shown: Any) -> str:
    """What the token map of an output says, which one expert colours alone."""
    (output,) = shown.outputs
    bars = output["data"]["application/vnd.plotly.v1+json"]["data"]
    return unescape("".join(bars[0]["text"]))


@pytest.mark.usefixtures("ipywidgets")
def test_a_prompt_is_answered_at_once_and_again_on_demand(mixture: MixtureForCausalLM):
    text, button, message, shown = prompt_explorer(mixture, "What is it?", max_new_tokens=5).children
    assert "answer" in message.value
    assert drawn_text(shown).startswith("<bos>What\u00a0is\u00a0it?")
    text.value = ""
    button.click()
    assert "The prompt is empty" in message.value
    assert shown.outputs == ()
    text.value = "Who?"
    button.click()
    assert drawn_text(shown).startswith("<bos>Who?")


@pytest.mark.usefixtures("ipywidgets")
def test_choices_find_the_questions_that_differ(invented_run: RunLayout, monkeypatch: pytest.MonkeyPatch):
    tasks = ("xbrl_tags", "finer")
    for task in tasks:
        invented_run.examples(task, "test").parent.mkdir(parents=True)
        write_examples(invented_run.examples(task, "test"), [Example(f"{task} {n}?", "a") for n in range(60)])
    monkeypatch.setattr(
        "finlora.benchmarks.why.errors.examples_sha256",
        lambda given: f"hash of {given[0].context.split()[0]}",
    )
    choices, shown = error_browser(invented_run, make_methods(tasks, (0, 1)), tasks).children
    assert "<b>X-LoRA</b> is better on" in shown.value
    assert "<b>Oracle</b> on" in shown.value
    task, _, second = choices.children
    second.value = "base"
    assert "<b>Base</b> on 0" in shown.value
    assert "xbrl_tags" in shown.value
    task.value = "finer"
    assert "xbrl_tags" not in shown.value
    assert "finer" in shown.value
    assert "multitask" in dict(map(reversed, second.options))
    assert "svd" not in dict(map(reversed, second.options))


def test_without_ipywidgets_it_says_what_to_install(
    mixture: MixtureForCausalLM, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(FinLoraError, match=r"pip install finlora\[notebooks\]"):
        scaling_sliders(mixture, "What is it?")
