"""Records of what hooks and observers got, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher import events


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines that a Recorder has written."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def collect() -> tuple[list[events.Event], Callable[[events.Event], None]]:
    """A list of events, and the observer that fills it."""
    seen: list[events.Event] = []
    return seen, seen.append
