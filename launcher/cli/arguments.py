"""What the commands about past runs have in common: how a run is named, and `--json`.

Rule: with `--json` stdout carries one JSON object with a `version`, and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from launcher.cli import completion
from launcher.errors import UsageError

__all__ = ["Env", "Json", "Quiet", "Run", "RunOrJob", "Verbose", "print_json", "values"]

VERSION = 1

Run = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]",
        help="Its id, the beginning of that, its folder, or `last`.",
        autocompletion=completion.runs,
    ),
]
RunOrJob = Annotated[
    str,
    typer.Argument(
        metavar="[RUN[#NUM]]",
        help="A run (id, its beginning, folder, `last`), or one job of it.",
        autocompletion=completion.jobs,
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="A variable of the run, whose value is kept nowhere; by default from the environment. Repeatable.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show hooks and starts, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only what goes wrong, and the closing report.")]


def values(given: list[str] | None) -> dict[str, str]:
    """The variables of `--env`; one without a value is that of this process.

    Raises:
        UsageError: it is not of this shape, or there is no such variable.
    """
    found = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UsageError(f"--env {name}: say --env NAME=VALUE, or set the variable")
        found[name] = value if equals else os.environ[name]
    return found


def print_json(**content: Any) -> None:
    """Write the answer as one JSON object."""
    sys.stdout.write(json.dumps({"version": VERSION, **content}, indent=2) + "\n")
