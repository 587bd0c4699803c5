"""Writes tasks for lm-evaluation-harness, so that others can ask them with the tool they know.

The folder holds one YAML file and one JSONL file a task, a group ``finlora`` of them all, and a module with
the scorers of this package. Format: https://github.com/EleutherAI/lm-evaluation-harness, docs/task_guide.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..atomic_write import write_text
from ..errors import FinLoraError
from .examples import write_examples
from .table import get_task
from .task import Example, Task

GROUP = "finlora"
_SCORES_MODULE = "finlora_scores"

_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: context
doc_to_target: target
target_delimiter: ""
num_fewshot: 0
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: {max_new_tokens}
process_results: !function {module}.{task}
metric_list:
  - metric: score
    aggregation: mean
    higher_is_better: true
metadata:
  version: {version}
"""
_GROUP = """\
group: {group}
task:
{tasks}
aggregate_metric_list:
  - metric: score
    aggregation: mean
    weight_by_size: false
metadata:
  version: 1
"""
_SCORES = '''\
"""FinLoRA's scores of exported tasks, from 0 to 100 an example."""

from finlora.experts.tasks import get_task
'''
_SCORE = """

def {task}(doc, results):
    return {{"score": 100 * get_task("{task}").scorer(results[0].strip(), doc["target"])}}
"""


def export_tasks(folder: Path, examples: Mapping[str, Sequence[Example]]) -> list[str]:
    """Write the tasks and their examples; ``lm_eval --include_path FOLDER`` finds them.

    The YAML files name the JSONL files by their whole path, so export again after moving the folder.

    Args:
        folder: Where to write; it must be empty or absent.
        examples: Examples to ask, by name of the task.

    Returns:
        Names under which the harness knows the tasks, ``finlora_`` and the name of the task.

    Raises:
        FinLoraError: An unknown task, a task without examples, or a folder that holds something.
    """
    tasks = [get_task(name) for name in examples]
    empty = [name for name, asked in examples.items() if not asked]
    if empty or not tasks:
        raise FinLoraError(f"There are no examples of {', '.join(empty) or 'any task'}; give at least one.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FinLoraError(f"{folder} holds something already and is never overwritten; name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        data = folder.resolve() / f"{task.name}.jsonl"
        write_examples(data, examples[task.name])
        write_text(folder / f"{_name(task)}.yaml", _yaml(task, data))
    write_text(
        folder / f"{GROUP}.yaml",
        _GROUP.format(group=GROUP, tasks="\n".join(f"  - {_name(task)}" for task in tasks)),
    )
    write_text(
        folder / f"{_SCORES_MODULE}.py", _SCORES + "".join(_SCORE.format(task=task.name) for task in tasks)
    )
    return [_name(task) for task in tasks]


def _name(task: Task) -> str:
    return f"{GROUP}_{task.name}"


def _yaml(task: Task, data: Path) -> str:
    return _TASK.format(
        name=_name(task),
        # A JSON string is a YAML string, whatever characters the path has.
        data=json.dumps(str(data)),
        max_new_tokens=task.max_new_tokens,
        module=_SCORES_MODULE,
        task=task.name,
        version=task.version,
    )
