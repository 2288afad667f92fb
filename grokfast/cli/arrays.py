"""``--shard=auto``: which task of a job array this is, by the variables of schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grokfast.errors import UsageError

#: The number of shards, for schedulers that do not tell, or where a part of an array runs again.
COUNT = "GROKFAST_SHARDS"


@dataclass(frozen=True)
class Scheduler:
    """Names of the variables of a task.

    Attributes:
        task: the task's number.
        outside: what it says in a job that is no array.
        first, last, step, count: of the numbers of the whole array, where it tells them.
        base: the first number of an array, where no variable tells it.
    """

    task: str
    outside: str = ""
    first: str = ""
    last: str = ""
    step: str = ""
    count: str = ""
    base: int = 1


SCHEDULERS = (
    Scheduler(  # Slurm: sbatch(1)
        task="SLURM_ARRAY_TASK_ID",
        first="SLURM_ARRAY_TASK_MIN",
        last="SLURM_ARRAY_TASK_MAX",
        step="SLURM_ARRAY_TASK_STEP",
        count="SLURM_ARRAY_TASK_COUNT",
    ),
    Scheduler(task="JOB_COMPLETION_INDEX", base=0),  # Kubernetes: indexed jobs
    Scheduler(  # Grid Engine: qsub(1)
        task="SGE_TASK_ID",
        outside="undefined",
        first="SGE_TASK_FIRST",
        last="SGE_TASK_LAST",
        step="SGE_TASK_STEPSIZE",
    ),
    Scheduler(task="PBS_ARRAY_INDEX"),  # PBS Professional, OpenPBS
    Scheduler(task="PBS_ARRAYID"),  # Torque
    Scheduler(  # LSF
        task="LSB_JOBINDEX", outside="0", last="LSB_JOBINDEX_END", step="LSB_JOBINDEX_STEP"
    ),
)


def shard_of_task(environment: Mapping[str, str]) -> tuple[int, int, str]:
    """The shard ``(i, n)`` of this task, and the variables that say so, for people.

    Raises:
        UsageError: no task of an array, not known of how many, or schedulers that disagree.
    """
    found = [
        _place(scheduler, environment)
        for scheduler in SCHEDULERS
        if environment.get(scheduler.task, "") not in ("", scheduler.outside)
    ]
    if not found:
        known = ", ".join(scheduler.task for scheduler in SCHEDULERS)
        raise UsageError(
            f"--shard=auto: this is no task of a job array, none of {known} is set",
            hint="give --shard=i/n",
        )
    first, *others = found
    for other in others:
        if other[:2] != first[:2]:
            raise UsageError(
                f"--shard=auto: {first[2]} is shard {first[0]}/{first[1]}, "
                f"{other[2]} is {other[0]}/{other[1]}",
                hint="unset one of them, or give --shard=i/n",
            )
    return first


def _place(scheduler: Scheduler, environment: Mapping[str, str]) -> tuple[int, int, str]:
    def number(name: str, otherwise: int) -> int:
        text = environment.get(name, "")
        if not text:
            return otherwise
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise UsageError(f"--shard=auto: {name}={text!r} is no whole number")
        return int(text)

    task = number(scheduler.task, 0)
    told = f"{scheduler.task}={task}"
    if environment.get(COUNT):
        first, last = scheduler.base, scheduler.base + number(COUNT, 0) - 1
        told += f", {COUNT}={environment[COUNT]}"
    else:
        first, last = number(scheduler.first, scheduler.base), number(scheduler.last, -1)
        if last < 0:
            raise UsageError(
                f"--shard=auto: {told} does not tell of how many",
                hint=f"set {COUNT}, or give --shard=i/n",
            )
        told += f" of {first} to {last}"
        whole = first in (0, 1) and number(scheduler.step, 1) == 1
        if not whole or number(scheduler.count, last - first + 1) != last - first + 1:
            raise UsageError(
                f"--shard=auto: {told} is no array of 1 to n or 0 to n-1, maybe a part of one",
                hint=f"set {COUNT} to the number of all shards, or give --shard=i/n",
            )
    if not first <= task <= last:
        raise UsageError(f"--shard=auto: {told} is none of {first} to {last}")
    return task - first + 1, last - first + 1, told
