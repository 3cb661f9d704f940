"""From Python, one job's output is shown as it is, and that of many jobs in lines."""

from __future__ import annotations

import pytest

from launcher.live.lines import LinePrinter
from launcher.live.observer import live_here
from launcher.live.output import LiveOutput


@pytest.mark.parametrize(("mode", "kind"), [("RUN", LiveOutput), ("MULTIRUN", LinePrinter)])
def test_what_shows_it(mode: str, kind: type) -> None:
    """As the command line does."""
    live = live_here(mode)
    assert type(live) is kind
    live.wait_shown()
    live.close()
