"""`launcher runs`: list your runs with their folder and state; adopt a folder as one of your runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from launcher.cli import arguments
from launcher.cli.parameters import Option
from launcher.util.text.terminal_text import clean_line

if TYPE_CHECKING:
    from launcher.runs.status import RunStatus

__all__ = ["runs"]

_Limit = Annotated[int, Option("--limit", "-n", metavar="N", min=1, help="Show at most this many runs.")]
_All = Annotated[bool, Option("--all", "-a", help="Show all runs, also those whose folder is gone.")]
_Adopt = Annotated[
    Path | None,
    Option(
        "--adopt",
        metavar="FOLDER",
        help="Treat the run in FOLDER as yours from now on. Its files can then run any code with your rights: "
        "do this only if you trust everybody who made the folder or could write to it.",
        show_default=False,
    ),
]


def runs(limit: _Limit = 20, is_all: _All = False, adopt: _Adopt = None, is_json: arguments.Json = False) -> None:
    """List the runs that you started on this machine, the latest first."""
    from launcher.runs import index
    from launcher.runs.status import read_status

    if adopt is not None:
        _adopt(adopt, is_json)
        return
    found = index.entries()
    chosen = [entry for entry in found if is_all or entry.is_there]
    left_out = 0 if is_all else max(0, len(chosen) - limit)
    statuses = [read_status(entry) for entry in chosen[: len(chosen) - left_out]]
    if is_json:
        arguments.print_json(runs=[status.to_json() for status in statuses], left_out=left_out)
        return
    if not statuses:
        gone = f" ({len(found)} have no folder any more; --all lists them)" if found else ""
        print(f"no runs{gone}")
        return
    from launcher.display.table import Column, print_table

    columns = [
        *(Column(name) for name in ("run", "state", "task", "started")),
        *(Column(name, is_number=True) for name in ("jobs", "completed", "failed", "open")),
        *(Column(name, may_fold=True) for name in ("hosts", "folder")),
    ]
    styles = {"failed": "red", "died": "red", "interrupted": "yellow", "running": "green", "detached": "cyan"}
    print_table(columns, [(_cells(status), styles.get(status.state, "")) for status in statuses], sys.stdout)
    if left_out:
        print(f"... and {left_out} more (--all)")


def _cells(status: RunStatus) -> list[str]:
    from launcher.display.text import shorten

    return [
        status.run,
        status.state,
        status.task,
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.started)),
        *(f"{number:,}" for number in (status.jobs, status.completed, status.failed, status.open)),
        shorten(", ".join(status.hosts), 40),
        clean_line(status.folder),
    ]


def _adopt(folder: Path, is_json: bool) -> None:
    from launcher.runs import ownership
    from launcher.runs.status import read_status

    entry = ownership.adopt(folder)
    if is_json:
        arguments.print_json(adopted=read_status(entry).to_json())
        return
    print(
        f"run {entry.run} in {clean_line(entry.folder)} is yours from now on: attach, resume, retry, cancel and reproduce load its files, "
        "which can run any code with your rights, and log in to the hosts that it names"
    )
