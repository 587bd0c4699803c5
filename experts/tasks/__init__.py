"""The task table: what each row asks, how answers are scored, where questions come from."""

from .examples import read_examples, write_examples
from .table import TASKS, get_task
from .task import Example, Task

__all__ = ["TASKS", "Example", "Task", "get_task", "read_examples", "write_examples"]
