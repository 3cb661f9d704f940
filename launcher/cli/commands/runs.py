"""`launcher runs`: list your runs with their folder and state; adopt a folder as one of your runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import arguments
from launcher.util.terminal_text import clean

__all__ = ["runs"]

_Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show at most this many runs.")]
_All = Annotated[bool, typer.Option("--all", "-a", help="Show all runs, also those whose folder is gone.")]
_Adopt = Annotated[
    Path | None,
    typer.Option(
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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from launcher.display.text import shorten

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "state", "task", "started"):
        table.add_column(name, no_wrap=True)
    for name in ("jobs", "completed", "failed", "open"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("hosts", overflow="fold")
    table.add_column("folder", overflow="fold")
    styles = {"failed": "red", "died": "red", "interrupted": "yellow", "running": "green", "detached": "cyan"}
    for status in statuses:
        cells = [
            status.run,
            status.state,
            status.task,
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.started)),
            *(f"{number:,}" for number in (status.jobs, status.completed, status.failed, status.open)),
            shorten(", ".join(status.hosts), 40),
            clean(status.folder),
        ]
        table.add_row(*(Text(cell, styles.get(status.state, "")) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(table)
    if left_out:
        print(f"... and {left_out} more (--all)")


def _adopt(folder: Path, is_json: bool) -> None:
    from launcher.runs import ownership
    from launcher.runs.status import read_status

    entry = ownership.adopt(folder)
    if is_json:
        arguments.print_json(adopted=read_status(entry).to_json())
        return
    print(
        f"run {entry.run} in {clean(entry.folder)} is yours from now on: attach, resume, retry, cancel and reproduce load its files, "
        "which can run any code with your rights, and log in to the hosts that it names"
    )
