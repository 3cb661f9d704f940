"""A channel over the pipes of a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from launcher.transports.process_channel import ProcessChannel


def test_a_read_of_a_process_makes_room_for_a_piece_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for all that a caller would take is fresh memory of the system for each read. All bytes still come, in their order."""
    code = "import os; [os.write(1, bytes([n]) * 300_000) for n in range(5)]"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    channel = ProcessChannel("h", process)
    sizes: list[int] = []
    read = os.read

    def counted(fd: int, size: int) -> bytes:
        sizes.append(size)
        return read(fd, size)

    monkeypatch.setattr(os, "read", counted)
    said = bytearray()
    while data := channel.recv(1 << 24):
        said += data
    channel.close()
    assert said == b"".join(bytes([number]) * 300_000 for number in range(5))
    assert max(sizes) <= 1 << 18
