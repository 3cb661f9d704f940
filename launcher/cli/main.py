"""The command `launcher`: loads the command that was asked for and no other, and turns errors into exit codes.

    0    every job completed
    1    some job failed, or something else went wrong
    2    usage or config: nothing was sent
    3    no host could be used
    130  interrupted; finished jobs were collected and the end hooks fired

Rule: an error that this package raises on purpose (a LauncherError) is one message on stderr; a traceback means a bug of ours.
LAUNCHER_DEBUG=1 always shows the traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from launcher import __version__
from launcher.cli.command_loader import OPTIONS, PROG, load_command
from launcher.cli.commands import COMMANDS
from launcher.cli.parameters import Exit
from launcher.cli.parser import UsageProblem, help_text, print_problem
from launcher.errors import LauncherError, RunInterrupted, UsageError
from launcher.util.closed_pipe import flush_stdout
from launcher.util.text.near import names_like
from launcher.util.text.terminal_text import clean

__all__ = ["main"]

_USAGE = f"Usage: {PROG} [OPTIONS] COMMAND [ARGS]..."
_ABOUT = "Run Hydra apps and plain Python functions on SSH hosts, with callbacks on both sides."


def main(args: Sequence[str] | None = None) -> None:
    """The entry point; ends the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a folder may not be text, and a terminal may lack characters: both are shown with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _main(list(sys.argv[1:] if args is None else args))
    flush_stdout()
    sys.exit(code)


def _main(args: list[str]) -> int:
    try:
        code = _answer() if "_LAUNCHER_COMPLETE" in os.environ else _run(args)
        if not flush_stdout():
            return 1
    except BrokenPipeError:
        return 1
    except (LauncherError, KeyboardInterrupt) as error:
        if os.environ.get("LAUNCHER_DEBUG") and isinstance(error, LauncherError):
            raise
        told = error if isinstance(error, LauncherError) else RunInterrupted("interrupted")
        print_error(_by_flag(told) if isinstance(told, UsageError) and told.option else told)
        return told.exit_code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return code


def _run(args: list[str]) -> int:
    """Run what was asked for; returns the exit code.

    Raises:
        LauncherError: it went wrong.
    """
    if not args:
        print(_help(), file=sys.stderr)
        return UsageError.exit_code
    usage, prog = _USAGE, PROG
    try:
        if args[0] not in COMMANDS:
            return _without_command(args[0])
        parser, call = load_command(args[0])
        usage, prog = parser.usage, parser.prog
        call(parser.parse(args[1:]))
    except Exit as leaving:
        return leaving.code
    except UsageProblem as problem:
        print_problem(usage, prog, problem)
        return UsageError.exit_code
    return 0


def _without_command(word: str) -> int:
    match word:
        case "--help":
            print(_help())
        case "--version":
            print(f"hydra-remote-launcher {__version__}")
        case "--show-completion" | "--install-completion":
            from launcher.cli import shells

            print(shells.script() if word == "--show-completion" else shells.install())
        case _:
            known = list(OPTIONS if word.startswith("-") else COMMANDS)
            what = "option" if word.startswith("-") else "command"
            near = names_like(word, known)
            hint = f"did you mean {near[0]!r}?" if near else f"the {what}s are {', '.join(known)}"
            raise UsageProblem(f"no such {what} {word!r}; {hint}")
    return 0


def _answer() -> int:
    """Answer a shell that completes a command line."""
    from launcher.cli import shells

    return shells.answer()


def _help() -> str:
    commands = [(name, entry.help) for name, entry in COMMANDS.items()]
    return help_text(_USAGE, _ABOUT, {"Options": OPTIONS.items(), "Commands": commands})


def _by_flag(error: UsageError) -> UsageError:
    """The error with its option as it is typed on the command line."""
    from launcher.cli.flags import flag_of

    return error.named(flag_of(error.option))


def print_error(error: LauncherError) -> None:
    """Print one message on stderr."""
    print(f"launcher: {clean(error)}", file=sys.stderr)
