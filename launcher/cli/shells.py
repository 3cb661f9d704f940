"""Completion in bash, zsh and fish: the scripts, where they are installed, and the answers that they ask for.

Rule: a script that was installed once goes on working. It calls `launcher` with the command line in variables, which keep their names, and
those of zsh and fish are named for the package that made the first scripts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.cli.command_loader import OPTIONS, load_command
from launcher.cli.commands import COMMANDS
from launcher.cli.parameters import Parameter
from launcher.errors import LauncherError, UsageError

__all__ = ["answer", "candidates", "install", "script"]

_Offered = list[tuple[str, str]]

_SCRIPTS = {
    "bash": """\
_launcher_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _LAUNCHER_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _launcher_completion launcher""",
    "zsh": """\
#compdef launcher

_launcher_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _LAUNCHER_COMPLETE=complete_zsh launcher)
}

compdef _launcher_completion launcher""",
    "fish": (
        'complete --command launcher --no-files --arguments "(env _LAUNCHER_COMPLETE=complete_fish '
        '_TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) launcher)" --condition "env '
        '_LAUNCHER_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) launcher"'
    ),
}
#: Of each shell, below the home: the file of the script, the file that loads it, and the lines that do.
_PLACES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bash": (".bash_completions/launcher.sh", ".bashrc", ("source '{script}'",)),
    "zsh": (".zfunc/_launcher", ".zshrc", ("fpath+=~/.zfunc; autoload -Uz compinit; compinit",)),
    "fish": (".config/fish/completions/launcher.fish", "", ()),
}


def script() -> str:
    """The script for the shell that this was called from.

    Raises:
        UsageError: it is a shell that has none.
    """
    return _SCRIPTS[_shell()]


def install() -> str:
    """Install the script for the shell that this was called from; returns what was done.

    Raises:
        UsageError: it is a shell that has none.
        LauncherError: a file cannot be written.
    """
    shell = _shell()
    place, loader, lines = _PLACES[shell]
    file = Path.home() / place
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_SCRIPTS[shell] + "\n", encoding="utf-8")
        if loader:
            _add_lines(Path.home() / loader, [line.format(script=file) for line in lines])
    except OSError as error:
        raise LauncherError(
            f"{error.filename}: {error.strerror}; completion was not installed; make the file writable, or save what --show-completion prints"
        ) from error
    return f"{shell} completion is installed in {file}; new shells have it"


def _add_lines(file: Path, lines: Sequence[str]) -> None:
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    missing = [line for line in lines if line not in text]
    if missing:
        with file.open("a", encoding="utf-8") as rest:
            rest.write(("" if text.endswith("\n") or not text else "\n") + "\n".join(missing) + "\n")


def _shell() -> str:
    """The shell that this was called from; else the user's login shell."""
    import shellingham

    try:
        name = str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in _SCRIPTS:
        raise UsageError(
            f"there is no completion for the shell {name!r}; there is one for {', '.join(_SCRIPTS)}: start it from one of these"
        )
    return name


# -- what a shell asks for -------------------------------------------------------------------------------------------


def answer(environ: Mapping[str, str] = os.environ) -> int:
    """Print what the shell may offer, in its form; returns the exit code. The variables of the script have the command line."""
    asked = environ.get("_LAUNCHER_COMPLETE", "")
    line = environ.get("_TYPER_COMPLETE_ARGS", "")
    match asked:
        case "complete_bash":
            words = _split(environ.get("COMP_WORDS", ""))
            index = int(environ.get("COMP_CWORD") or 0)
            offered = candidates(words[1:index], words[index] if index < len(words) else "")
            text = "\n".join(word for word, _ in offered)
        case "complete_zsh":
            shown = "\n".join(_for_zsh(*one) for one in candidates(*_words_of(line)))
            text = f"_arguments '*: :(({shown}))'" if shown else "_files"
        case "complete_fish":
            offered = candidates(*_words_of(line))
            if environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
                # If not, fish offers files.
                return 0 if offered else 1
            text = "\n".join(f"{word}\t{' '.join(meaning.split())}" if meaning else word for word, meaning in offered)
        case _:
            raise UsageError(
                f"_LAUNCHER_COMPLETE={asked[:50]!r} is set, which no completion script of ours sets; unset it"
            )
    print(text)
    return 0


def candidates(words: Sequence[str], incomplete: str) -> _Offered:
    """What the last, incomplete word of a command line may become, each with its meaning.

    Args:
        words: the complete ones after `launcher`.
    """
    if not words:
        names = OPTIONS if incomplete.startswith("-") else {name: entry.help for name, entry in COMMANDS.items()}
        return [(name, meaning) for name, meaning in names.items() if name.startswith(incomplete)]
    if words[0] not in COMMANDS:
        return []
    parser, _ = load_command(words[0])
    flags = {flag: one for one in parser.options for flag in (*one.flags_on, *one.flags_off)}
    valued = {flag for flag, one in flags.items() if not one.is_switch}
    number, waiting = 0, None
    for word in words[1:]:
        if waiting is None and word in valued:
            waiting = flags[word]
        elif waiting is not None:
            waiting = None
        elif not word.startswith("-"):
            number += 1
    if waiting is not None:
        return _offered(waiting, incomplete)
    flag, equals, value = incomplete.partition("=")
    if equals and flag in valued:
        return [(f"{flag}={word}", meaning) for word, meaning in _offered(flags[flag], value)]
    if incomplete.startswith("-"):
        known = [*((flag, one.declared.help) for flag, one in flags.items()), ("--help", OPTIONS["--help"])]
        return [(flag, meaning) for flag, meaning in known if flag.startswith(incomplete)]
    arguments = parser.arguments
    if number >= len(arguments) and not (arguments and arguments[-1].is_list):
        return []
    return _offered(arguments[min(number, len(arguments) - 1)], incomplete)


def _offered(one: Parameter, incomplete: str) -> _Offered:
    offer = one.declared.autocompletion
    return [(word, "") if isinstance(word, str) else word for word in (offer(incomplete) if offer else [])]


def _split(text: str) -> list[str]:
    """The words of a command line, of which the last may lack its closing quote."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    with contextlib.suppress(ValueError):
        words.extend(lexer)
        return words
    return [*words, lexer.token] if lexer.token else words


def _words_of(line: str) -> tuple[list[str], str]:
    words = _split(line)[1:]
    return (words[:-1], words[-1]) if words and not line.endswith(" ") else (words, "")


def _for_zsh(word: str, meaning: str) -> str:
    def quoted(text: str) -> str:
        text = text.replace('"', '""').replace("'", "''")
        return '"{}"'.format(re.sub(r"([$`])", r"\\\1", text).replace(":", r"\\:"))

    return f"{quoted(word)}:{quoted(meaning)}" if meaning else quoted(word)
