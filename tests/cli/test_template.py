"""The templates, run by stand-ins for the schedulers: what is printed is what is executed.

Each task is preempted in the midst of training, by the signals that its scheduler sends and where
it sends them, queued again, and trained to its end; the merge gives the bytes of a single process.
"""

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml

import grokfast as gf
from grokfast.cli import main
from grokfast.cli.arrays import SCHEDULERS
from grokfast.cli.commands import COMMANDS
from grokfast.cli.completion import script

ENGINE = "native" if importlib.util.find_spec("grokfast._native") else "reference"
OPTIONS = (
    "--lr=1e-3,1e-2 --weight-decay=0,5,10 --set=model.width=8 --steps=60 --stop=never "
    f"--engine={ENGINE} --device=cpu"
)

#: grokfast; while there is a file preempt-<shard>, it waits in its second chunk for the signal, and
#: removes the file to say that it is there.
PROGRAM = """
import importlib, sys, time
from pathlib import Path
from grokfast.cli import main
name = {"native": "NativeEngine", "reference": "ReferenceEngine"}[ENGINE]
module = importlib.import_module(f"grokfast.engines.{ENGINE}")
class Waiting(getattr(module, name)):
    chunk, calls = 20, 0
    def advance(self, bucket, state, cells, until, tick=None):
        self.calls += 1
        mark = Path(FOLDER, f"preempt-{1 if 0 in bucket.cells else 0}")
        if self.calls == 2 and mark.exists():
            mark.unlink()
            while not tick(0):
                time.sleep(0.01)
        super().advance(bucket, state, cells, until, tick)
setattr(module, name, Waiting)
sys.exit(main())
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with ``grokfast`` on the path; no variable of another scheduler."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "program.py"
    program.write_text(f"ENGINE, FOLDER = {ENGINE!r}, {str(tmp_path)!r}\n{PROGRAM}")
    command = shlex.join([sys.executable, str(program)])
    executable(tmp_path / "bin" / "grokfast", f'exec {command} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in [n for n in os.environ if n.startswith(("SLURM_", "GROKFAST_SHARDS"))]:
        monkeypatch.delenv(name)
    for scheduler in SCHEDULERS:
        monkeypatch.delenv(scheduler.task, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def executable(path, *lines):
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


@pytest.fixture
def printed(capsys):
    def template(*arguments):
        assert main(["template", *arguments]) == 0
        return capsys.readouterr().out

    return template


def assert_as_one_process(path):
    whole = gf.run(
        gf.preset("addition-classification").grid(
            lr=[1e-3, 1e-2], weight_decay=[0.0, 5.0, 10.0], width=8, steps=60, stop="never"
        ),
        engine=ENGINE,
        device="cpu",
        threads=1,
        progress=False,
    )
    merged = gf.Results.load(path)
    assert set(merged.variables) == set(whole.variables)
    for name in whole.variables:
        assert merged[name].tobytes() == whole[name].tobytes(), name


def preempt(folder, tasks):
    """Sends each task its signal once it has come into its second chunk."""
    for number, (process, signum) in tasks.items():
        while (folder / f"preempt-{number}").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signum)


def start(command, **environment):
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_slurm(cluster, printed):
    text = printed("slurm", "--shards=2", f"--options={OPTIONS}")
    (cluster / "grid.sh").write_text(text)
    executable(cluster / "bin" / "sbatch", 'printf "%s\\0" "$@" . >> submitted', "echo '7;cluster'")
    executable(cluster / "bin" / "scontrol", 'echo "$@" >> controlled')
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    assert directives["array"] == "1-2"
    assert directives["signal"].startswith("B:USR1@")
    assert {"requeue", "open-mode"} <= set(directives)
    commands = [line for line in text.splitlines() if line and line[0] != "#"]
    assert text.index(commands[0]) > text.rindex("#SBATCH --output"), "sbatch reads no further"

    # As its user starts it.
    assert subprocess.run(["bash", "grid.sh"]).returncode == 0
    shards, merge, _ = (cluster / "submitted").read_text().split("\0.\0")
    assert shards.split("\0") == ["--parsable", "grid.sh"]
    assert "--dependency=afterok:7" in merge.split("\0")
    (wrapped,) = (a for a in merge.split("\0") if a.startswith("--wrap="))

    def task(number):
        array = {"ID": number, "MIN": 1, "MAX": 2, "COUNT": 2, "STEP": 1}
        variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        return start(
            ["bash", "grid.sh"],
            SLURM_JOB_ID=str(7 + number),
            SLURM_ARRAY_JOB_ID="7",
            SLURM_CPUS_PER_TASK=directives["cpus-per-task"],
            SLURM_SUBMIT_DIR=str(cluster),
            **variables,
        )

    # Signals reach the shell alone, as B: says.
    for number in (0, 1):
        (cluster / f"preempt-{number}").touch()
    tasks = {1: (task(2), signal.SIGUSR1), 0: (task(1), signal.SIGTERM)}  # 2/2 has cell 0
    preempt(cluster, tasks)
    for process, signum in tasks.values():
        said, _ = process.communicate()
        assert process.returncode == 128 + signum, said
        assert f"interrupted by {signum.name}; saved to " in said
    assert sorted((cluster / "controlled").read_text().split()) == sorted(
        ["requeue", "7_1", "requeue", "7_2"]
    )
    assert main(["status", *map(str, cluster.glob("*.shard-*.h5"))]) == 4

    # Queued again.
    again = [task(1), task(2)]
    assert [(process.communicate(), process.returncode)[1] for process in again] == [0, 0]
    assert (cluster / "controlled").read_text().count("requeue") == 2
    done = subprocess.run(["sh", "-c", wrapped.removeprefix("--wrap=")], cwd="/")
    assert done.returncode == 0
    assert_as_one_process(cluster / "addition-classification.h5")


def test_slurm_queues_no_failure_again(cluster, printed):
    """A usage error of every task."""
    text = printed("slurm", "modular-addition", "--shards=2", "--options=--lr=-1")
    (cluster / "grid.sh").write_text(text)
    executable(cluster / "bin" / "scontrol", 'echo "$@" >> controlled')
    process = start(["bash", "grid.sh"], SLURM_ARRAY_TASK_ID="1", GROKFAST_SHARDS="2")
    said, _ = process.communicate()
    assert process.returncode == 2, said
    assert not (cluster / "controlled").exists()


def test_kubernetes(cluster, printed):
    text = printed("kubernetes", "--shards=2", f"--options={OPTIONS}")
    job, merge = yaml.safe_load_all(text)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 2)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    variables = {v["name"]: v["value"] for v in container["env"]}
    words = [*container["command"], *container["args"]]
    assert all(isinstance(word, str) for word in (*words, *variables.values()))
    assert f"--threads={container['resources']['limits']['cpu']}" in words
    (mount,) = container["volumeMounts"]
    assert mount["name"] == pod["volumes"][0]["name"]

    def local(words):
        return [word.replace(mount["mountPath"], str(cluster)) for word in words]

    def task(index):
        return start(local(words), JOB_COMPLETION_INDEX=str(index), **variables)

    def action(code):
        """Of a pod that has failed by itself."""
        for rule in spec["podFailurePolicy"]["rules"]:
            codes = rule.get("onExitCodes", {})
            if code in codes.get("values", ()):
                assert codes["containerName"] == container["name"]
                return rule["action"]
        return "Count"

    assert [action(code) for code in (1, 2, 3, 137)] == ["Count", "FailIndex", "Count", "Count"]
    for number in (0, 1):
        (cluster / f"preempt-{number}").touch()
    tasks = {1: (task(1), signal.SIGTERM), 0: (task(0), signal.SIGTERM)}
    preempt(cluster, tasks)
    for process, _ in tasks.values():
        said, _ = process.communicate()
        assert process.returncode == 143, said
        assert action(process.returncode) == "Ignore"
    again = [task(0), task(1)]
    assert [(process.communicate(), process.returncode)[1] for process in again] == [0, 0]

    assert merge["spec"]["suspend"]
    assert f"job/{merge['metadata']['name']} -p " in text
    (joining,) = merge["spec"]["template"]["spec"]["containers"]
    done = subprocess.run(local([*joining["command"], *joining["args"]]))
    assert done.returncode == 0
    assert_as_one_process(cluster / "addition-classification.h5")


@pytest.mark.parametrize("scheduler", ["slurm", "kubernetes"])
@pytest.mark.parametrize("options", ["", '--setting="a=1:lr=1e-3;it\'s:lr=$(HOME)" --stop=never'])
def test_options_arrive_as_they_were_given(scheduler, options, printed):
    text = printed(
        scheduler, "modular-addition", f"--options={options}" if options else "--shards=8"
    )
    assert not re.search(r"@[A-Z]+@", text)
    if scheduler == "slurm":
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
        (line,) = (line for line in text.splitlines() if line.startswith("OPTIONS="))
        show = f'{line}\nprintf "%s\\0" "${{OPTIONS[@]}}"'
        found = subprocess.run(["bash", "-c", show], capture_output=True, text=True).stdout
        words = found.split("\0")[: len(shlex.split(options))]
    else:
        job, _ = yaml.safe_load_all(text)
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        words = [word.replace("$$(", "$(") for word in arguments[1:-3]]
    assert words == shlex.split(options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["slrm"], "no template for 'slrm'; there are slurm and kubernetes; did you mean slurm?"),
        (["slurm", "adition-regression"], "did you mean addition-regression?"),
        (["slurm", "--shards=0"], "--shards='0' is no whole number from 1"),
        (["slurm", "--options=--lrr=3"], "unknown option --lrr for 'run'; did you mean --lr?"),
        (["slurm", "--options=--shard=1/2"], "--shard is given twice"),
        (["slurm", "--options=--lr='1"], "no closing quotation"),
        (["slurm", "--options=--lr=1\n--steps=2"], "--options is one line"),
    ],
)
def test_what_each_task_would_refuse_is_refused_here(arguments, says, capsys):
    assert main(["template", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_they_are_completed():
    assert r"template) words=$'slurm\nkubernetes\n" in script("bash", COMMANDS)
