"""Controls for notebooks, which need ipywidgets: browse errors, ask a mixture, change its scalings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ...experts.errors import FinLoraError
from ...moe.mixture import MixtureForCausalLM
from ..layout import RunLayout
from ..methods import Method
from .errors import differences_html, read_differences
from .explore import answer_prompt, answer_with_scalings
from .read_scalings import layer_names
from .token_map import token_map


def error_browser(layout: RunLayout, methods: Mapping[str, Method], tasks: Sequence[str]) -> Any:
    """Choose a task and two methods, and read the questions on which they differ.

    Args:
        layout: A finished run.
        methods: Its methods by name; of one with routers the first seed answers, and those that kept no
            answers of their own are left out, but for the oracle.
        tasks: Its tasks.

    Returns:
        An ipywidgets box: the three choices above the questions.

    Raises:
        FinLoraError: ipywidgets is not installed.
    """
    widgets = _ipywidgets()
    answered = [
        (method.title, name)
        for name, method in methods.items()
        if name == "oracle" or layout.cell(name, method.seeds[0], tasks[0]).exists()
    ]
    task = widgets.Dropdown(options=list(tasks), description="Task")
    first = widgets.Dropdown(options=answered, value="xlora", description="Method")
    second = widgets.Dropdown(options=answered, value="oracle", description="against")
    shown = widgets.HTML()

    def update(_change: object = None) -> None:
        chosen = methods[first.value], methods[second.value]
        names, seeds = (chosen[0].name, chosen[1].name), (chosen[0].seeds[0], chosen[1].seeds[0])
        found = read_differences(layout, task.value, names, seeds)
        shown.value = differences_html(found, (chosen[0].title, chosen[1].title))

    for control in (task, first, second):
        control.observe(update, "value")
    update()
    return widgets.VBox([widgets.HBox([task, first, second]), shown])


def prompt_explorer(mixture: MixtureForCausalLM, prompt: str, *, max_new_tokens: int = 64) -> Any:
    """Type a prompt, get the mixture's answer and a map of which expert each token used.

    Args:
        mixture: The mixture.
        prompt: What stands there at first; it is answered at once.
        max_new_tokens: Most tokens of an answer.

    Returns:
        An ipywidgets box: the prompt, a button, and the map.

    Raises:
        FinLoraError: ipywidgets is not installed.
    """
    widgets = _ipywidgets()
    text = widgets.Textarea(value=prompt, layout=widgets.Layout(width="920px", height="150px"))
    button = widgets.Button(description="Answer", button_style="primary")
    message, shown = widgets.HTML(), widgets.Output()

    def respond(_button: object = None) -> None:
        shown.outputs = ()
        message.value = _or_error(lambda: _answer_into(shown, mixture, text.value, max_new_tokens))

    button.on_click(respond)
    respond()
    return widgets.VBox([text, button, message, shown])


def scaling_sliders(mixture: MixtureForCausalLM, prompt: str, *, max_new_tokens: int = 64) -> Any:
    """Set how much of each expert is used for a prompt, and see how the answer changes.

    The sliders begin where the router has its mean over the answer. They hold for all tokens and layers.

    Args:
        mixture: The mixture.
        prompt: The question.
        max_new_tokens: Most tokens of an answer.

    Returns:
        An ipywidgets box: a slider for each expert, and the answers.

    Raises:
        FinLoraError: ipywidgets is not installed, or the prompt is empty or too long.
    """
    widgets = _ipywidgets()
    routed = answer_prompt(mixture, prompt, max_new_tokens=max_new_tokens)
    sliders = {
        name: widgets.FloatSlider(
            value=round(weight, 2),
            min=0.0,
            max=1.5,
            step=0.05,
            description=name,
            continuous_update=False,
            style={"description_width": "150px"},
            layout=widgets.Layout(width="520px"),
        )
        for name, weight in zip(mixture.bank.expert_names, routed.mean_scalings, strict=True)
    }
    shown = widgets.HTML()

    def update(_change: object = None) -> None:
        weights = {name: slider.value for name, slider in sliders.items()}
        steered = answer_with_scalings(mixture, prompt, weights, max_new_tokens=max_new_tokens)
        shown.value = _said("with the router", routed.text) + _said("with the sliders", steered)

    for slider in sliders.values():
        slider.observe(update, "value")
    update()
    return widgets.VBox([*sliders.values(), shown])


def _answer_into(shown: Any, mixture: MixtureForCausalLM, prompt: str, max_new_tokens: int) -> str:
    answered = answer_prompt(mixture, prompt, max_new_tokens=max_new_tokens)
    layers = layer_names(mixture, answered.read.scalings.shape[1])
    figure = token_map(answered.read, experts=mixture.bank.expert_names, layers=layers)
    # A figure that is displayed here would appear outside the box.
    data = {"application/vnd.plotly.v1+json": json.loads(str(figure.to_json()))}
    shown.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
    return _said("answer", answered.text)


def _or_error(action: Callable[[], str]) -> str:
    try:
        return action()
    except FinLoraError as error:
        return f"<b style='color: #be123c'>{escape(str(error))}</b>"


def _said(who: str, text: str) -> str:
    return f"<span style='color: #6b7280'>{who}:</span> <b>{escape(text) or '(nothing)'}</b><br>"


def _ipywidgets() -> Any:
    try:
        import ipywidgets
    except ImportError as error:
        raise FinLoraError(
            "These controls need ipywidgets, which is not installed; run `pip install finlora[notebooks]`."
        ) from error
    return ipywidgets
