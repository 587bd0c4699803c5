"""The task and suite tables."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import TASKS, get_task
from finlora.experts.tasks.suites import SUITES, Suite, get_suite
from finlora.experts.tasks.task import Example


def test_every_task_is_complete_and_named_as_its_key():
    """A report can print each task's title, source and licence."""
    assert len(TASKS) >= 16
    for name, task in TASKS.items():
        assert task.name == name
        assert all((task.title, task.source, task.licence))
        assert task.version >= 1
        assert task.max_new_tokens >= 4
    titles = [task.title for task in TASKS.values()]
    assert len(set(titles)) == len(titles)


def test_an_unknown_task_gets_a_suggestion():
    """A misspelt name is answered by the nearest one."""
    assert get_task("fpb") is TASKS["fpb"]
    with pytest.raises(FinLoraError, match="did you mean 'xbrl_value'"):
        get_task("xbrl_values")
    with pytest.raises(FinLoraError, match="known tasks are"):
        get_task("qqq")


def test_every_suite_asks_known_tasks():
    """No suite names a task that is not in the table."""
    for name, suite in SUITES.items():
        assert suite.name == name
        assert set(suite.tasks) <= TASKS.keys()
        assert len(set(suite.tasks)) == len(suite.tasks) >= 8


def test_a_suite_refuses_unknown_tasks_and_splits():
    """The message names what is allowed."""
    suite = Suite("mine", "Mine", ("fpb",), lambda task, split: [Example(task, split)])
    assert suite.examples("fpb", "train") == [Example("fpb", "train")]
    with pytest.raises(FinLoraError, match="its tasks are fpb"):
        suite.examples("tfns", "train")
    with pytest.raises(FinLoraError, match="allowed are train, validation, test"):
        suite.examples("fpb", "dev")
    with pytest.raises(FinLoraError, match="allowed are embedded, real"):
        get_suite("synthetic")
    assert get_suite("real") is SUITES["real"]
