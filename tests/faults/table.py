"""docs/faults.md, made from the tests of the suite."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.injection import Fault

__all__ = ["table"]

_HEAD = """# Faults

This page is for people who want to know what was tried. Each row is a test of `tests/faults/test_faults.py`. It runs on a real OpenSSH host in its own mount and
pid namespaces, where the controller's files do not exist. `python -m tests.faults` writes the page from the tests.

| what happens | what holds | test |
|---|---|---|
"""

_TAIL = """
`tests/launcher/session/test_resumed.py` tests what a controller survives: kill -9 at a hundred random moments with a host on its own, SIGHUP, SIGTERM, Ctrl-C once
and twice, two resumes at once. [durability.md](durability.md) says what follows. `tests/simulation/` tests clock jumps, duplicates and reordering.
"""


def table(faults: Sequence[Fault]) -> str:
    """Return the page."""
    rows = "".join(f"| {one.name} | {one.invariant} | `{one.test}` |\n" for one in faults)
    return _HEAD + rows + _TAIL
