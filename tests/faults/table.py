"""docs/faults.md, made from the tests of the suite."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.injection import Fault

__all__ = ["table"]

_HEAD = """# Faults

Each row is a test of `tests/faults/test_faults.py`, run on a real OpenSSH host in its own mount and pid namespaces, with
nothing of the controller's files. The page is generated from the tests by `python -m tests.faults`.

| what happens | what holds all the same | test |
|---|---|---|
"""

_TAIL = """
What a controller survives (kill -9 at a hundred random moments with a host apart, SIGHUP, SIGTERM, Ctrl-C once and twice, two
resumes at once) is in `tests/launcher/session/test_resumed.py` and `docs/durability.md`; clock jumps, duplicates and reordering belong to the simulation.
"""


def table(faults: Sequence[Fault]) -> str:
    """The page."""
    rows = "".join(f"| {one.name} | {one.invariant} | `{one.test}` |\n" for one in faults)
    return _HEAD + rows + _TAIL
