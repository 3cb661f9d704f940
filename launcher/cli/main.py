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

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from launcher import __version__
from launcher.cli.commands import COMMANDS
from launcher.errors import LauncherError, RunInterrupted, UsageError

__all__ = ["main"]

_INTERRUPTED = RunInterrupted.exit_code


class _Interrupted(Exception):
    """Carries a KeyboardInterrupt through typer, which would lose its message and exit with code 1."""

    def __init__(self, error: KeyboardInterrupt) -> None:
        self.error = error if isinstance(error, RunInterrupted) else RunInterrupted("interrupted")


class _Commands(TyperGroup):
    """A group of commands; a command is imported when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry.function.partition(":")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name=cmd_name)(getattr(importlib.import_module(module), name))
        return typer.main.get_command(app)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(error) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"hydra-remote-launcher {__version__}")
        raise typer.Exit


_app = typer.Typer(cls=_Commands, rich_markup_mode=None, no_args_is_help=True, invoke_without_command=False)


@_app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run Hydra apps and plain Python functions on SSH hosts, with callbacks on both sides."""


def main(args: Sequence[str] | None = None) -> None:
    """The entry point; ends the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a folder may not be text, and a terminal may lack characters: both are shown with escapes.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(_main(list(sys.argv[1:] if args is None else args)))


def _main(args: list[str]) -> int:
    command = typer.main.get_command(_app)
    try:
        command(args, prog_name="launcher")
    except (LauncherError, _Interrupted) as raised:
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        error = raised.error if isinstance(raised, _Interrupted) else raised
        print_error(_by_flag(error) if isinstance(error, UsageError) and error.option else error)
        return error.exit_code
    except KeyboardInterrupt:
        print("launcher: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except SystemExit as leaving:
        code = leaving.code
        return code if isinstance(code, int) else 0 if code is None else 1
    return 0


def _by_flag(error: UsageError) -> UsageError:
    """The error with its option as it is typed on the command line."""
    from launcher.cli.options import flag_of

    return error.named(flag_of(error.option))


def print_error(error: LauncherError) -> None:
    """Print one message on stderr."""
    from launcher.display.text import clean

    print(f"launcher: {clean(error)}", file=sys.stderr)
