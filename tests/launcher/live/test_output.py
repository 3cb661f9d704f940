"""A job's output on our own streams: in order, without waiting for anybody, and without memory for what waits."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from launcher import events
from launcher.live.output import LiveOutput


class Pipe:
    """A pipe with a stream at its writing end."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stream: TextIO = os.fdopen(writing, "w", encoding="utf-8")

    def read(self, size: int) -> bytes:
        """Wait for this many bytes."""
        data = b""
        while len(data) < size:
            data += os.read(self.reading, size - len(data))
        return data


@pytest.fixture
def out() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.reading)


@pytest.fixture
def err() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.reading)


def arrived(
    data: bytes, offset: int = 0, stream: str = "stdout", file: str = "", attempt: int = 1
) -> events.OutputArrived:
    text = data.decode("utf-8", "surrogateescape")
    return events.OutputArrived(1.0, 0, "gpu1", stream, text, attempt, offset, file)


def returned() -> events.JobReturned:
    return events.JobReturned(2.0, 0, 1, "gpu1", "COMPLETED", 0.5, None)


def test_bytes_are_written_unchanged(out: Pipe, err: Pipe) -> None:
    """Every byte of each stream, even if it is not text."""
    every = bytes(range(256))
    with LiveOutput(out.stream, err.stream) as live:
        live(arrived(every[:131]))
        live(arrived(b"to stderr", stream="stderr"))
        live(arrived(every[131:], 131))
        live(returned())
    assert out.read(256) == every
    assert err.read(9) == b"to stderr"


def test_waiting_output_is_read_from_the_file(out: Pipe, err: Pipe, tmp_path: Path) -> None:
    """Taking an event never waits. A hundred adjacent pieces wait as one."""
    data = os.urandom(1 << 20) * 8
    file = tmp_path / "stdout"
    file.write_bytes(data)
    live = LiveOutput(out.stream, err.stream)
    for offset in range(0, len(data), 1 << 16):
        live(arrived(data[offset : offset + (1 << 16)], offset, file=str(file)))
    assert len(live._waiting) <= 2
    assert all(piece.data is None for piece in live._waiting if not callable(piece))
    live(returned())
    # The job's folder may be moved: an attempt that is retried makes room for the next.
    file.rename(tmp_path / "attempt-1")
    closing = threading.Thread(target=live.close)
    closing.start()
    assert out.read(len(data)) == data
    closing.join()


@pytest.mark.slow
def test_nothing_waits_for_a_reader_that_reads_nothing(out: Pipe, err: Pipe) -> None:
    """Hooks fire all the same."""
    live = LiveOutput(out.stream, err.stream)
    live(arrived(b"x" * (1 << 20)))
    live.wait_shown()
    closing = threading.Thread(target=live.close)
    closing.start()
    assert out.read(1 << 20) == b"x" * (1 << 20)
    closing.join()


def test_hooks_print_after_the_jobs_output(out: Pipe, err: Pipe) -> None:
    """`wait_shown` waits until the job's output is written."""
    with LiveOutput(out.stream, err.stream) as live:
        live(arrived(b"of the job\n"))
        live.wait_shown()
        print("of the hook", file=out.stream, flush=True)
    assert out.read(23) == b"of the job\nof the hook\n"


def test_a_closed_pipe_ends_nothing(err: Pipe) -> None:
    """The other stream goes on. If hooks print to the closed pipe, nothing fails, neither now nor at exit."""
    pipe = Pipe()
    os.close(pipe.reading)
    with LiveOutput(pipe.stream, err.stream) as live:
        live(arrived(b"nobody reads"))
        live(arrived(b"this is read", stream="stderr"))
    assert err.read(12) == b"this is read"
    print("a hook", file=pipe.stream, flush=True)
    pipe.stream.close()


def test_a_missing_stdout_is_no_error(err: Pipe) -> None:
    """After `launcher run ... >&-`, Python has no stdout."""
    with LiveOutput(None, err.stream) as live:
        live(arrived(b"nowhere"))
        live(arrived(b"here", stream="stderr"))
    assert err.read(4) == b"here"


def test_the_next_attempt_is_shown_from_its_beginning(out: Pipe, err: Pipe) -> None:
    """The output of each attempt comes after that of the one before."""
    with LiveOutput(out.stream, err.stream) as live:
        live(arrived(b"first\n"))
        live(events.JobRequeued(2.0, 0, 1, "gpu1", "killed"))
        live(arrived(b"second\n", attempt=2))
    assert out.read(13) == b"first\nsecond\n"


def test_a_stream_without_bytes_gets_text() -> None:
    """As in a notebook. The text is filtered as for a terminal, because people read it."""

    class Notebook(io.StringIO):
        pass

    stream = Notebook()
    with LiveOutput(stream, stream) as live:
        live(arrived("\x1b[31mgrün".encode()[:8]))
        live(arrived("\x1b[31mgrün\x1b[2J".encode()[8:], 8))
        live(returned())
    assert stream.getvalue() == "\x1b[31mgrün\x1b[0m"
