"""Questions on which two methods differ, from the files of a run."""

from pathlib import Path

import pytest

from finlora.benchmarks.layout import RunLayout
from finlora.benchmarks.predictions import Prediction, Summary, write_predictions
from finlora.benchmarks.why.errors import Difference, differences_html, find_differences, read_differences
from finlora.experts.errors import FinLoraError
from finlora.experts.provenance import examples_sha256
from finlora.experts.tasks import Example, write_examples

EXAMPLES = [Example(f"Question {number} <b>?", f"answer {number}") for number in range(4)]
SCORES = {
    "base": (0.0, 0.5, 1.0, 0.0),
    "expert:headline": (1.0, 0.75, 0.0, 0.0),
    "xlora": (0.0, 0.5, 1.0, 1.0),
}


def predictions(method: str) -> list[Prediction]:
    """What a method answered."""
    return [
        Prediction(f"{method} {number}", example.target, score)
        for number, (example, score) in enumerate(zip(EXAMPLES, SCORES[method], strict=True))
    ]


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """A run with the answers of three methods."""
    layout = RunLayout(tmp_path)
    layout.examples("headline", "test").parent.mkdir(parents=True)
    write_examples(layout.examples("headline", "test"), EXAMPLES)
    for method in SCORES:
        summary = Summary(
            task="headline",
            task_version=1,
            model=method,
            base="embedded",
            base_revision="0123",
            quantization="nf4",
            score=0.0,
            n=len(EXAMPLES),
            too_long=0,
            seconds=1.0,
            peak_bytes=1,
            answer_tokens=1,
            tokens_per_second=1.0,
            parameters=1,
            examples_sha256=examples_sha256(EXAMPLES),
            commit=None,
        )
        seed = 2 if method == "xlora" else None
        write_predictions(layout.cell(method, seed, "headline"), predictions(method), summary)
    return layout


def test_questions_with_different_scores_the_clearest_first(run: RunLayout):
    found = read_differences(run, "headline", ("base", "oracle"))
    assert [one.number for one in found] == [0, 2, 1]
    assert found[1] == Difference(
        2, "Question 2 <b>?", "answer 2", ("base 2", "expert:headline 2"), (1.0, 0.0)
    )
    assert [one.number for one in read_differences(run, "headline", ("xlora", "base"), (2, None))] == [3]
    assert find_differences(EXAMPLES, predictions("base"), predictions("base")) == []


def test_answers_to_other_questions_are_not_mixed_in(run: RunLayout):
    write_examples(run.examples("headline", "test"), EXAMPLES[:3])
    with pytest.raises(FinLoraError, match="base answered other questions of headline"):
        read_differences(run, "headline", ("base", "oracle"))
    with pytest.raises(FinLoraError, match=r"Cannot read .*multitask"):
        read_differences(run, "headline", ("multitask", "base"))


def test_the_page_shows_both_answers_and_no_markup_of_the_prompts(run: RunLayout):
    found = read_differences(run, "headline", ("base", "oracle"))
    page = differences_html(found, ("Base", "Oracle"), most=2)
    assert "<b>Base</b> is better on 1 questions, <b>Oracle</b> on 2" in page
    assert "Not shown: 1." in page
    assert "Question 2 &lt;b&gt;?" in page
    assert "expert:headline 2" in page
    assert "answer 1" not in page
    assert "0 questions" in differences_html([], ("Base", "Oracle"))


def test_a_long_prompt_keeps_its_ends():
    long = Difference(0, "first " + "x" * 5000 + " last", "", ("", ""), (0.0, 1.0))
    assert long.shown_prompt.startswith("first")
    assert long.shown_prompt.endswith("last")
    assert "3,511 characters" in long.shown_prompt
    assert len(long.shown_prompt) < 1600
