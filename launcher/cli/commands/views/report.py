"""`launcher report`: the page of a run.

Rule: the page is there whole, or as it was. It is made from the journal alone, so that it can be made at any time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from launcher.cli import arguments
from launcher.cli.parameters import Option
from launcher.util.text.terminal_text import clean_line

__all__ = ["report"]

_Open = Annotated[bool, Option("--open", help="Open the page in your browser.")]
_Into = Annotated[
    Path | None,
    Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the page to this file (default: report.html in the run's folder).",
        show_default=False,
    ),
]
_FullPaths = Annotated[
    bool,
    Option(
        "--full-paths",
        help="Show full paths, with the names of home folders. Link also files outside the page's folder.",
    ),
]


def report(
    run: arguments.Run = "last",
    is_opened: _Open = False,
    into: _Into = None,
    sort: arguments.Sort = None,
    full_paths: _FullPaths = False,
) -> None:
    """Write the report of RUN: one HTML page for a browser, which needs no network.

    It has what failed and why, parameters against results, the timeline of each slot, and every job.
    """
    from launcher.report_page.facts import read_facts
    from launcher.report_page.page import render
    from launcher.runs import index

    entry = index.find(run)
    path = into or entry.folder / "report.html"
    data = render(read_facts(entry, sort=sort or "", full_paths=full_paths), path.parent, full_paths=full_paths)
    arguments.write_output(path, data)
    print(clean_line(path))
    if is_opened:
        import webbrowser

        if not webbrowser.open(path.absolute().as_uri()):
            print("launcher: no browser was found; open the file yourself", file=sys.stderr)
