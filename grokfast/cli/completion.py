"""Completion scripts for bash, zsh and fish: commands, options, presets, fields, files."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grokfast.cli.signatures import Command, Option, read_command
from grokfast.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Offer:
    """What may stand in a place: words, files or folders.

    Attributes:
        files: suffix of files, ``*`` for any.
        listed: whether several words, split by commas, may stand there.
    """

    words: tuple[str, ...] = ()
    files: str = ""
    folders: bool = False
    listed: bool = False


_BASH = """\
# grokfast completion for bash; in ~/.bashrc: eval "$(grokfast completion bash)"
_grokfast_files() {
    local name
    if [[ -n $ZSH_VERSION && -n $lead ]]; then  # whose compgen looks for the whole word
        for name in "$cur"*; do
            if [[ -d $name ]]; then COMPREPLY+=( "$lead$name/" )
            elif [[ -e $name && $1 != / && $name == *${1#\\*} ]]; then COMPREPLY+=( "$lead$name" )
            fi
        done
        return
    fi
    type compopt &> /dev/null && compopt -o filenames  # which zsh does not have
    COMPREPLY=( $(compgen -d -P "$lead" -- "$cur") )
    [[ $1 == / ]] || COMPREPLY+=( $(compgen -f -X "!*$1" -P "$lead" -- "$cur") )
}
_grokfast() {
    local IFS=$'\\n' cur="${COMP_WORDS[COMP_CWORD]}" at=$COMP_CWORD option="" lead="" words=""
    local files="" listed=""
    # bash splits --kind=phases at the equals sign, zsh does not
    if [[ $cur == --*=* ]]; then
        option="${cur%%=*}" lead="${cur%%=*}=" cur="${cur#*=}"
    else
        [[ $cur == [=:] ]] && cur="" && at=$(( at + 1 ))
        while (( at > 2 )) && [[ ${COMP_WORDS[at-1]} == [=:] ]]; do at=$(( at - 2 )); done
        if (( at <= COMP_CWORD )) && [[ ${COMP_WORDS[at]} == --* && $at -lt $COMP_CWORD ]]; then
            option="${COMP_WORDS[at]}"
        elif [[ ${COMP_WORDS[at-1]} == --* ]]; then
            option="${COMP_WORDS[at-1]}"
        fi
    fi
    if (( COMP_CWORD == 1 )); then
        words=@COMMANDS@
    else
        case "${COMP_WORDS[1]} $option" in
@VALUES@
            *)
                case "${COMP_WORDS[1]}" in
@PLACES@
                esac
                case "${COMP_WORDS[1]}$cur" in
@OPTIONS@
                esac ;;
        esac
    fi
    if [[ -n $listed && $cur == *,* ]]; then lead="$lead${cur%,*}," cur="${cur##*,}"; fi
    COMPREPLY=()
    [[ -n $words ]] && COMPREPLY=( $(compgen -P "$lead" -W "$words" -- "$cur") )
    [[ -z ${COMPREPLY[*]} && -n $files ]] && _grokfast_files "$files"
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && type compopt &> /dev/null \\
        && compopt -o nospace
    return 0
}
complete @NOSPACE@-F _grokfast grokfast
"""

_ZSH = """\
# grokfast completion for zsh; in ~/.zshrc: eval "$(grokfast completion zsh)"
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -u; }
autoload -U +X bashcompinit && bashcompinit
"""

_FISH = """\
# grokfast completion for fish; in ~/.config/fish/config.fish: grokfast completion fish | source
complete -c grokfast -f
"""


def script(shell: str, functions: dict[str, Callable[..., Any]]) -> str:
    """The script of a shell.

    Raises:
        UsageError: none of :data:`SHELLS`.
    """
    if shell not in SHELLS:
        raise UsageError(f"no completion for {shell!r}", hint=f"there are {', '.join(SHELLS)}")
    commands = {name: read_command(name, function) for name, function in functions.items()}
    if shell == "fish":
        return _FISH + "\n".join(_fish(commands))
    zsh = shell == "zsh"
    text = _bash(commands).replace("@NOSPACE@", "-o nospace " if zsh else "")
    return (_ZSH if zsh else "") + text


def _bash(commands: dict[str, Command]) -> str:
    def case(pattern: str, offer: Offer, indent: int) -> str:
        does = [f"words={_lines(offer.words)}"] if offer.words else []
        files = offer.files or ("/" if offer.folders else "")
        does += [f"files={shlex.quote(files)}"] if files else []
        does += ["listed=1"] if offer.listed else []
        return f"{' ' * indent}{pattern}) {' '.join(does) or ':'} ;;"

    values, places, options = [], [], []
    for name, command in commands.items():
        for option in command.options.values():
            if not option.switch:
                values.append(case(f'"{name} --{option.name}"', _value(option), 12))
        places.append(case(name, _places(command), 20))
        options.append(case(f"{name}-*", Offer(words=_flags(command)), 20))
    filled = _BASH.replace("@COMMANDS@", _lines((*commands, "--help", "--version")))
    for mark, lines in (("VALUES", values), ("PLACES", places), ("OPTIONS", options)):
        filled = filled.replace(f"@{mark}@", "\n".join(lines))
    return filled


def _lines(words: tuple[str, ...]) -> str:
    """Words for ``compgen -W``, which splits them at newlines."""
    return "$'" + "\\n".join(words) + "'"


def _flags(command: Command) -> tuple[str, ...]:
    flags = (o.shown + ("" if o.switch else "=") for o in command.options.values())
    return (*flags, "--help")


def _fish(commands: dict[str, Command]) -> list[str]:
    lines = [
        f"complete -c grokfast -n __fish_use_subcommand -a {name} "
        f"-d {_fish_quoted(_about(command))}"
        for name, command in commands.items()
    ]
    lines.append("complete -c grokfast -l help -d 'Show help'")
    for name, command in commands.items():
        begin = f"complete -c grokfast -n '__fish_seen_subcommand_from {name}'"
        if told := _fish_offer(_places(command)):
            lines.append(f"{begin} {told}")
        for option in command.options.values():
            told = "" if option.switch else f" -r {_fish_offer(_value(option))}".rstrip()
            lines.append(f"{begin} -l {option.shown.removeprefix('--')}{told}")
    return lines


def _fish_offer(offer: Offer) -> str:
    if offer.files == "*":
        return "-F"
    told = " ".join(offer.words)
    if offer.listed:
        told = f'(__fish_complete_list , \'string split " " "{told}"\')'
    told += f" (__fish_complete_suffix {offer.files})" if offer.files else ""
    told += " (__fish_complete_directories)" if offer.folders else ""
    return f"-a {_fish_quoted(told.strip())}" if told else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _about(command: Command) -> str:
    return (command.function.__doc__ or "").partition("\n")[0]


def _value(option: Option) -> Offer:
    """What an option may have as its value."""
    fixed = _fixed_values()
    if option.name in fixed:
        return Offer(words=fixed[option.name], listed=option.name == "record")
    if option.name == "set":
        return Offer(words=tuple(f"{name}=" for name in _fields()), listed=True)
    if option.metavar.startswith("AXIS") and ":" not in option.metavar:
        return Offer(words=_fields(), listed=True)
    if option.metavar == "DIR":
        return Offer(folders=True)
    if option.metavar == "FILE":
        return Offer(files=".h5")
    if option.metavar.startswith(("FIG.", "x.")):
        return Offer(files="*")
    return Offer()


def _places(command: Command) -> Offer:
    """What may stand where no option does."""
    words = tuple(_positional_values().get(command.name, ()))
    files = any(p.parameter in ("file", "files", "reference") for p in command.positionals)
    return Offer(words=words, files=".h5" if files else "")


@functools.cache
def _fields() -> tuple[str, ...]:
    """Of the experiments of all presets, as they are typed: short names where there are."""
    from grokfast.fields import scalar_fields, short_name
    from grokfast.presets import PRESETS

    paths = (p for preset in PRESETS.values() for p in scalar_fields(preset.build().experiment))
    return tuple(dict.fromkeys(map(short_name, paths)))


@functools.cache
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
    from grokfast.cli.template import TEMPLATES
    from grokfast.presets import PRESETS
    from grokfast.tasks import TASKS

    return {
        "run": list(PRESETS),
        "fields": list(dict.fromkeys(name for part in parts() for name in part.names)),
        "data": [*ACTIONS, *TASKS, *PRESETS],
        "template": [*TEMPLATES, *PRESETS],
        "completion": list(SHELLS),
    }
