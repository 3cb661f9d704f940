"""`launcher demo`: see `launcher.demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from launcher.cli.parameters import Exit, Option
from launcher.errors import UsageError

__all__ = ["demo"]


def demo(
    folder: Annotated[
        str | None, Option("--folder", metavar="DIR", help="Keep the results in this folder.", show_default=False)
    ] = None,
) -> None:
    """Run a sweep over SSH, on a temporary server on this machine, and check what the launcher promises."""
    from launcher.demo.demo import Demo

    kept = Path(folder).absolute() if folder is not None else None
    if kept is not None and kept.exists() and any(kept.iterdir()):
        raise UsageError(f"--folder: {kept} is not empty; name a new folder, or an empty one")

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    raise Exit(0 if Demo(say, kept).run() else 1)
