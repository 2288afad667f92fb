"""Tasks: data sets as deterministic functions of their fields."""

from grokfast.tasks.addition import Addition
from grokfast.tasks.algorithmic import Algorithmic
from grokfast.tasks.base import TASKS, Task, TaskData, task
from grokfast.tasks.images import Digits, Mnist
from grokfast.tasks.modular import Modular
from grokfast.tasks.parity import Parity

__all__ = [
    "TASKS",
    "Addition",
    "Algorithmic",
    "Digits",
    "Mnist",
    "Modular",
    "Parity",
    "Task",
    "TaskData",
    "task",
]
