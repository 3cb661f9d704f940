"""What the commands about past runs share: the argument that names a run, and `--json`.

Rule: with `--json`, stdout has one JSON object with a `version` and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from launcher.cli import completion
from launcher.cli.parameters import Argument, Option
from launcher.errors import UsageError
from launcher.util.text.terminal_text import clean_line

__all__ = ["Env", "Json", "Quiet", "Run", "RunOrJob", "Sort", "Verbose", "print_json", "values", "write_output"]

VERSION = 1

Run = Annotated[
    str,
    Argument(
        metavar="[RUN]",
        help="The run: its id or the beginning of it, its folder, or `last`.",
        autocompletion=completion.runs,
    ),
]
RunOrJob = Annotated[
    str,
    Argument(
        metavar="[RUN[#NUM]]",
        help="A run (its id or the beginning of it, its folder, or `last`), or one of its jobs.",
        autocompletion=completion.jobs,
    ),
]
Env = Annotated[
    list[str] | None,
    Option(
        "--env",
        metavar="NAME=VALUE",
        help="A variable that the run was started with. Its value is not stored, so give it here, or set the variable. Repeatable.",
        show_default=False,
    ),
]
Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Sort = Annotated[
    str | None,
    Option(
        "--sort",
        metavar="NAME",
        help="Sort the jobs by a value that came back, such as `loss`, by an override, or by `job`, `host`, `state` or `time`. The least comes first; "
        "with a minus (`-loss`), the greatest.",
        show_default=False,
        takes_dash=True,
    ),
]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Also show hooks and starts of jobs.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show only problems, and the summary at the end.")]


def values(given: list[str] | None) -> dict[str, str]:
    """The variables of `--env`; one without a value has the value of this process.

    Raises:
        UsageError: the option has another form, or the variable is not set here.
    """
    found = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UsageError(f"--env {name}: write --env NAME=VALUE, or set the variable here")
        found[name] = value if equals else os.environ[name]
    return found


def print_json(**content: Any) -> None:
    """Write the answer as one JSON object."""
    sys.stdout.write(json.dumps({"version": VERSION, **content}, indent=2) + "\n")


def write_output(path: Path, data: bytes) -> None:
    """Write the file that a command makes: whole, or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageError(f"{clean_line(path)}: {error.strerror}; name another file with --output") from None
