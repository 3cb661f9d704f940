"""Shows a run to its user. A table of contents.

Rule: the display observes events and decides nothing. Its memory does not grow with finished jobs. Control characters from a host
never reach a terminal.
"""

from launcher.display.factory import Display, make_display
from launcher.display.lines import LineDisplay
from launcher.display.summary import print_summary, summary_json
from launcher.display.tally import Tally

__all__ = [
    "Display",
    "LineDisplay",
    "Tally",
    "make_display",
    "print_summary",
    "summary_json",
]
