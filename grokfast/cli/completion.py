"""Completion scripts for bash and zsh: commands, options, presets and other fixed values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grokfast.cli.signatures import read_command
from grokfast.errors import UsageError

_BASH = """\
# grokfast completion for bash; in ~/.bashrc: eval "$(grokfast completion bash)"
_grokfast() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words=""
    # bash splits --kind=phases at the equals sign
    [[ $cur == "=" ]] && cur=""
    if [[ $prev == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
    case "$prev" in
@VALUES@
        *)
            if (( COMP_CWORD == 1 )); then
                words="@COMMANDS@ --help --version"
            else
                case "${COMP_WORDS[1]}" in
@OPTIONS@
                esac
            fi ;;
    esac
    COMPREPLY=( $(compgen -W "$words" -- "$cur") )
    # zsh's bashcompinit has no compopt
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && type compopt &> /dev/null \\
        && compopt -o nospace
    [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=( $(compgen -f -- "$cur") )
    return 0
}
complete -o filenames -F _grokfast grokfast
"""

_ZSH = """\
# grokfast completion for zsh; in ~/.zshrc: eval "$(grokfast completion zsh)"
autoload -U +X bashcompinit && bashcompinit
"""


def script(shell: str, functions: dict[str, Callable[..., Any]]) -> str:
    """The script of a shell.

    Raises:
        UsageError: neither bash nor zsh.
    """
    if shell not in ("bash", "zsh"):
        raise UsageError(f"no completion for {shell!r}", hint="there are bash and zsh")
    commands = {name: read_command(name, function) for name, function in functions.items()}
    values = {f"--{k}": " ".join(v) for k, v in _fixed_values().items()}
    options = []
    for name, command in commands.items():
        words = [f"--{o.name}" + ("" if o.switch else "=") for o in command.options.values()]
        words += _positional_values().get(name, [])
        options.append(f'                    {name}) words="{" ".join(words)} --help" ;;')
    text = _BASH.replace("@COMMANDS@", " ".join(commands))
    text = text.replace("@OPTIONS@", "\n".join(options))
    text = text.replace(
        "@VALUES@", "\n".join(f'        {k}) words="{v}" ;;' for k, v in values.items())
    )
    return (_ZSH if shell == "zsh" else "") + text


def _fixed_values() -> dict[str, tuple[str, ...]]:
    from grokfast.cli.overrides import ENGINES
    from grokfast.fields import options, scalar_fields
    from grokfast.figures import KINDS
    from grokfast.observables import OBSERVABLES
    from grokfast.presets import preset

    experiment = preset("addition-classification").experiment
    listed = {path: options(kind) for path, kind in scalar_fields(experiment).items()}
    return {
        "activation": listed["model.activation"],
        "device": ("auto", "cpu", "cuda"),
        "dtype": listed["dtype"],
        "engine": ENGINES,
        "kind": KINDS,
        "precision": listed["precision"],
        "record": ("weights", "curves:200", "curves:all", *OBSERVABLES, "none"),
        "stop": listed["stop"],
    }


def _positional_values() -> dict[str, list[str]]:
    from grokfast.cli.datasets import ACTIONS
    from grokfast.cli.fieldlist import parts
    from grokfast.presets import PRESETS
    from grokfast.tasks import TASKS

    return {
        "run": list(PRESETS),
        "fields": list(dict.fromkeys(name for part in parts() for name in part.names)),
        "data": [*ACTIONS, *TASKS, *PRESETS],
        "completion": ["bash", "zsh"],
    }
