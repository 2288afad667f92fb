"""``grokfast template``: job arrays for schedulers, ready to submit, from templates/."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files

from grokfast.cli.overrides import parse_count
from grokfast.cli.preflight import preflight
from grokfast.cli.signatures import closest, read_command
from grokfast.errors import UsageError

TEMPLATES = {"slurm": "slurm.sh", "kubernetes": "kubernetes.yaml"}

#: What the templates give themselves.
_OWN = ("--shard=auto", "--out=r.{shard}.h5", "--threads=4")


def act(scheduler: str, preset: str, shards: str, options: str | None) -> None:
    """Prints the template with the run filled in.

    Raises:
        UsageError: no template for it, or a run that the command line would refuse.
    """
    if scheduler not in TEMPLATES:
        close = closest(scheduler, TEMPLATES)
        raise UsageError(
            f"no template for {scheduler!r}; there are {' and '.join(TEMPLATES)}",
            hint=f"did you mean {close}?" if close else None,
        )
    number = parse_count("shards", shards, example=8)
    words = _words(options or "")
    _check(preset, words)
    text = files("grokfast.cli").joinpath("templates", TEMPLATES[scheduler]).read_text("utf-8")
    command = shlex.join(["grokfast", "run", preset, *words])
    # Double quotes of YAML are those of JSON; Kubernetes itself replaces $(NAME).
    arguments = [f"            - {json.dumps(word.replace('$(', '$$('))}\n" for word in words]
    for name, value in {
        "@ARGS@\n": "".join(arguments),
        "@OPTIONS@": shlex.join(words),
        "@PRESET@": preset,
        "@RUN@": command,
        "@SHARDS@": str(number),
    }.items():
        text = text.replace(name, value)
    print(text, end="")


def _words(options: str) -> list[str]:
    if not options.isprintable():
        raise UsageError("--options is one line of printable text")
    try:
        return shlex.split(options)
    except ValueError as error:
        raise UsageError(f"--options={options!r}: {error}".replace("No c", "no c")) from None


def _check(preset: str, words: list[str]) -> None:
    """Finds here what each task would find: an unknown preset, unknown or repeated options."""
    from grokfast.cli.commands import run
    from grokfast.presets import preset as known

    known(preset)
    preflight(["run", preset, *words, *_OWN], {"run": read_command("run", run)})
