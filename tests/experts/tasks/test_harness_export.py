"""What is written for lm-evaluation-harness."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, get_task
from finlora.experts.tasks.harness import export_tasks

EXAMPLES = {
    "xbrl_value": [Example("XML File: {{x}}\nAnswer:", "1200", "Acme"), Example("And?", "7")],
    "headline": [Example("Up?", "Yes")],
}


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as that text."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def test_each_task_has_a_file_examples_and_a_scorer(tmp_path: Path) -> None:
    """Limits and versions are the task's; scores are its scorer's, from 0 to 100."""
    folder = tmp_path / 'a "folder"'
    assert export_tasks(folder, EXAMPLES) == ["finlora_xbrl_value", "finlora_headline"]
    for name, examples in EXAMPLES.items():
        content = yaml.load((folder / f"finlora_{name}.yaml").read_text(), _Loader)
        assert content["task"] == f"finlora_{name}"
        assert content["generation_kwargs"]["max_gen_toks"] == get_task(name).max_new_tokens
        assert content["metadata"]["version"] == get_task(name).version
        assert content["process_results"] == f"finlora_scores.{name}"
        rows = Path(content["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
        assert [json.loads(row)["context"] for row in rows] == [example.context for example in examples]
    group = yaml.safe_load((folder / "finlora.yaml").read_text())
    assert group["task"] == ["finlora_xbrl_value", "finlora_headline"]
    spec = importlib.util.spec_from_file_location("finlora_scores", folder / "finlora_scores.py")
    assert spec is not None
    assert spec.loader is not None
    scores = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scores)
    assert scores.xbrl_value({"target": "1200"}, [" $1,200.0\n"]) == {"score": 100.0}
    assert scores.headline({"target": "Yes"}, ["No"]) == {"score": 0.0}


@pytest.mark.parametrize(
    ("examples", "message"),
    [({}, "any task"), ({"headline": []}, "examples of headline"), ({"no_task": []}, "no task 'no_task'")],
)
def test_nothing_to_export_is_an_error(tmp_path: Path, examples, message: str) -> None:
    with pytest.raises(FinLoraError, match=message):
        export_tasks(tmp_path / "out", examples)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FinLoraError, match="never overwritten"):
        export_tasks(tmp_path, EXAMPLES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
