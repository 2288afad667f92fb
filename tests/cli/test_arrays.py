"""Which shard a task of a job array is."""

import pytest

from grokfast.cli import main
from grokfast.cli.arrays import SCHEDULERS, shard_of_task
from grokfast.errors import UsageError


def slurm(task, first, last, count=None, step=1):
    count = last - first + 1 if count is None else count
    numbers = {"ID": task, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


def grid_engine(task, first, last, step=1):
    numbers = {"ID": task, "FIRST": first, "LAST": last, "STEPSIZE": step}
    return {f"SGE_TASK_{name}": str(number) for name, number in numbers.items()}


def lsf(task, last):
    numbers = {"": task, "_END": last, "_STEP": 1}
    return {f"LSB_JOBINDEX{name}": str(number) for name, number in numbers.items()}


KUBERNETES = {"JOB_COMPLETION_INDEX": "2", "GROKFAST_SHARDS": "8"}


@pytest.mark.parametrize(
    ("environment", "shard", "told"),
    [
        (slurm(3, 1, 8), (3, 8), "SLURM_ARRAY_TASK_ID=3 of 1 to 8"),
        (slurm(0, 0, 7), (1, 8), "SLURM_ARRAY_TASK_ID=0 of 0 to 7"),
        (slurm(7, 0, 7), (8, 8), "SLURM_ARRAY_TASK_ID=7 of 0 to 7"),
        (
            slurm(3, 3, 7, count=2, step=4) | {"GROKFAST_SHARDS": "8"},
            (3, 8),
            "SLURM_ARRAY_TASK_ID=3, GROKFAST_SHARDS=8",
        ),
        (KUBERNETES, (3, 8), "JOB_COMPLETION_INDEX=2, GROKFAST_SHARDS=8"),
        (grid_engine(8, 1, 8), (8, 8), "SGE_TASK_ID=8 of 1 to 8"),
        (
            {"PBS_ARRAY_INDEX": "1", "GROKFAST_SHARDS": "4"},
            (1, 4),
            "PBS_ARRAY_INDEX=1, GROKFAST_SHARDS=4",
        ),
        (lsf(2, 5), (2, 5), "LSB_JOBINDEX=2 of 1 to 5"),
        # Not an array, as Grid Engine and LSF say it.
        (slurm(3, 1, 8) | {"SGE_TASK_ID": "undefined"} | lsf(0, 0), (3, 8), "SLURM_ARRAY"),
        # Two that agree.
        (slurm(3, 1, 8) | {"SGE_TASK_ID": "3", "SGE_TASK_LAST": "8"}, (3, 8), "SLURM_ARRAY"),
    ],
)
def test_a_task_knows_its_shard(environment, shard, told):
    *found, why = shard_of_task(environment)
    assert tuple(found) == shard
    assert why.startswith(told)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "no task of a job array, none of SLURM_ARRAY_TASK_ID, .* is set; give --shard=i/n"),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}, "no task of a job array"),
        ({"GROKFAST_SHARDS": "8"}, "no task of a job array"),
        (
            {"JOB_COMPLETION_INDEX": "2"},
            "JOB_COMPLETION_INDEX=2 does not tell of how many; set GROKFAST_SHARDS",
        ),
        ({"PBS_ARRAY_INDEX": "2"}, "PBS_ARRAY_INDEX=2 does not tell of how many"),
        (
            slurm(3, 1, 8) | {"SGE_TASK_ID": "2", "SGE_TASK_LAST": "8"},
            "SLURM_ARRAY_TASK_ID=3 of 1 to 8 is shard 3/8, SGE_TASK_ID=2 of 1 to 8 is 2/8; unset",
        ),
        # Parts of an array that have been submitted again, and lists.
        (
            slurm(3, 3, 7, count=2, step=4),
            "of 3 to 7 is no array of 1 to n .*; set GROKFAST_SHARDS",
        ),
        (slurm(5, 5, 5), "of 5 to 5 is no array of 1 to n"),
        (slurm(2, 1, 5, count=3), "of 1 to 5 is no array of 1 to n"),
        (grid_engine(3, 1, 7, step=2), "of 1 to 7 is no array of 1 to n"),
        # Numbers that cannot be.
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "8"}, "GROKFAST_SHARDS=8 is none of 0 to 7"),
        (slurm(0, 1, 8) | {"GROKFAST_SHARDS": "8"}, "GROKFAST_SHARDS=8 is none of 1 to 8"),
        (KUBERNETES | {"GROKFAST_SHARDS": "eight"}, "GROKFAST_SHARDS='eight' is no whole number"),
        (KUBERNETES | {"JOB_COMPLETION_INDEX": "-1"}, "'-1' is no whole number"),
    ],
)
def test_what_does_not_tell_is_refused(environment, says):
    with pytest.raises(UsageError, match=f"^--shard=auto: .*{says}"):
        shard_of_task(environment)


@pytest.fixture
def outside(monkeypatch):
    """No task of an array, wherever these tests run."""
    for scheduler in SCHEDULERS:
        monkeypatch.delenv(scheduler.task, raising=False)
    monkeypatch.delenv("GROKFAST_SHARDS", raising=False)


def test_a_run_says_which_shard_it_is(outside, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", "addition-classification", "--lr=1e-3,1e-2", "--weight-decay=0", "--steps=2"]
    command += ["--engine=reference", "--device=cpu", "--shard=auto"]
    assert main(command) == 2
    assert "this is no task of a job array" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    for name, value in slurm(2, 1, 2).items():
        monkeypatch.setenv(name, value)
    assert main(command) == 0
    says = "shard 2/2: SLURM_ARRAY_TASK_ID=2 of 1 to 2\n"
    assert capsys.readouterr().err.startswith(says)
    assert (tmp_path / "addition-classification.shard-2-of-2.h5").exists()
