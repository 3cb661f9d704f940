"""Answers questions on stdin and stdout, for the roles that only tell something.

Rule: one question after the other, until stdin ends.
"""

import os
from typing import Callable, Iterable

from remote_agent.protocol import wire

__all__ = ["answer_on_stdin"]


def answer_on_stdin(answer: Callable[[wire.Frame], Iterable[bytes]]) -> int:
    """Write what each frame is answered with. Returns the exit code."""
    _write(wire.PREAMBLE)
    decoder = wire.Decoder()
    while True:
        data = os.read(0, 1 << 16)
        if not data:
            return 0
        for frame in decoder.feed(data):
            for part in answer(frame):
                _write(part)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
