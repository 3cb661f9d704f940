"""What a run looks like to the person who started it. A table of contents.

Rule: the display watches events and decides nothing. Its memory does not grow with finished jobs, and nothing that came
from a host reaches a terminal with control characters in it.
"""

from typing import TYPE_CHECKING, Any

from launcher.display.factory import Display, make_display
from launcher.display.lines import LineDisplay
from launcher.display.summary import closing_json, print_closing
from launcher.display.tally import Tally

if TYPE_CHECKING:
    from launcher.display.progress import ProgressDisplay

__all__ = [
    "Display",
    "LineDisplay",
    "ProgressDisplay",
    "Tally",
    "closing_json",
    "make_display",
    "print_closing",
]


def __getattr__(name: str) -> Any:
    # The one part that needs rich before there is anything to draw.
    if name == "ProgressDisplay":
        from launcher.display.progress import ProgressDisplay

        return ProgressDisplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
