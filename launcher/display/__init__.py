"""How a run is shown to its user. A table of contents.

Rule: the display watches events and decides nothing. Its memory does not grow with finished jobs. Control characters in text from a
host never reach a terminal.
"""

from typing import TYPE_CHECKING, Any

from launcher.display.factory import Display, make_display
from launcher.display.lines import LineDisplay
from launcher.display.summary import print_summary, summary_json
from launcher.display.tally import Tally

if TYPE_CHECKING:
    from launcher.display.progress import ProgressDisplay

__all__ = [
    "Display",
    "LineDisplay",
    "ProgressDisplay",
    "Tally",
    "make_display",
    "print_summary",
    "summary_json",
]


def __getattr__(name: str) -> Any:
    # The only part that needs rich before anything is drawn.
    if name == "ProgressDisplay":
        from launcher.display.progress import ProgressDisplay

        return ProgressDisplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
