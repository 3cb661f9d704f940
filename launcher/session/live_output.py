"""What jobs print, shown as they print it: one job's on our own stdout and stderr, or many jobs' as lines that say whose they are.

Rule: a reader that is slow, or gone, holds up nothing and costs no memory. `LiveOutput` writes from a thread of its own, and takes what
waits from the job's files here. To a pipe or a file go the bytes, to a terminal what `launcher.util.terminal_filter` lets through.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from launcher import events
from launcher.util.terminal_filter import TerminalFilter
from launcher.util.terminal_text import clean_lines

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LineCutter", "LinePrinter", "Live", "LiveOutput", "live_here"]

#: Bytes that are read and written at once.
_PIECE = 1 << 18
#: Seconds for which `wait_shown` waits for a reader that takes nothing.
_PATIENCE = 1.0
#: Pieces that may wait in their order; of what comes behind these, stdout and stderr are kept in order each by itself.
_MOST_WAITING = 10_000
#: Bytes of a line that has no end yet; then it is shown as one.
_MOST_OF_A_LINE = 1 << 16
#: Bytes of stderr that are remembered: a traceback.
_TAIL = 1 << 17
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


class Live(Protocol):
    """Shows what jobs print."""

    def __call__(self, event: events.Event) -> None:
        """Take an event of a run."""

    def wait_shown(self) -> None:
        """Wait until what has come is written, as long as its reader takes any of it."""

    def close(self) -> None:
        """Write the rest."""


def live_here(mode: str) -> Live:
    """What shows in this process, as the command line does, what the jobs of a run print."""
    return LiveOutput(sys.stdout, sys.stderr) if mode == "RUN" else LinePrinter()


@dataclass(eq=False)
class _Source:
    """One stream of one attempt: its file here, and what a terminal has had of it."""

    fd: int
    stream: str
    to: _Sink
    filter: TerminalFilter = field(default_factory=TerminalFilter)
    #: The piece of it that waits last.
    last: _Piece | None = None


@dataclass(eq=False)
class _Piece:
    """Bytes that wait to be shown: in the source's file from begin to end, or at hand."""

    source: _Source
    begin: int
    end: int
    data: bytes | None = None


class _Sink:
    """One of our two streams.

    What cannot be written any more is dropped: nobody reads a pipe, or its disk is full. It is kept in the job's folder all the same.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._text = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        #: A terminal; or a stream that takes no bytes, as a notebook's: what it shows is for people, too.
        self.is_terminal = stream is not None and (stream.isatty() or not hasattr(stream, "buffer"))
        self.is_closed = stream is None
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Write it all, however long its reader takes."""
        if self.is_closed or self._stream is None:
            return
        try:
            if not self._is_begun:
                # What was printed here before comes before.
                self._stream.flush()
                self._is_begun = True
            if self._fd is not None:
                _write_all(self._fd, data)
                return
            if hasattr(self._stream, "buffer"):
                self._stream.buffer.write(data)
            else:
                self._stream.write(self._text.decode(data))
            self._stream.flush()
        except OSError as error:
            self._close(error)

    def _close(self, error: OSError) -> None:
        self.is_closed = True
        if self._fd is None:
            return
        if not isinstance(error, BrokenPipeError) and self._stream is not sys.stderr:
            print(
                f"launcher: what the job prints cannot be written here any more ({error.strerror}); it goes on, and its output is "
                "kept in its folder",
                file=sys.stderr,
            )
        # What hooks print there must fail neither now nor at exit (docs.python.org, `signal`, on SIGPIPE).
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), self._fd)


def _descriptor(stream: TextIO | None) -> int | None:
    """The descriptor that a stream writes to; None where it writes elsewhere, as a notebook's does whatever it says."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Whoever gave us the descriptor has made it one that does not wait.
            select.select([], [fd], [])


class LiveOutput:
    """One job's stdout and stderr on ours. An observer; also tells what others have to say there, in one order with it.

    Args:
        stdout, stderr: None drops what would go there.
        before_terminal: called once, before the first of it goes to a terminal.
    """

    def __init__(
        self, stdout: TextIO | None, stderr: TextIO | None, before_terminal: Callable[[], None] = lambda: None
    ) -> None:
        out = _Sink(stdout)
        self._sinks = {"stdout": out, "stderr": out if stderr is stdout else _Sink(stderr)}
        self._sources: dict[tuple[int, int, str], _Source] = {}
        self._waiting: deque[_Piece | Callable[[], None]] = deque()
        self._condition = threading.Condition()
        self._is_busy = False
        self._is_closing = False
        self._done = 0
        self._thread: threading.Thread | None = None
        self.before_terminal = before_terminal
        self._was_on_terminal = False
        #: What was shown last of the job's stderr.
        self._tail = b""
        #: The terminal's cursor stands behind something, which what follows must not be glued to.
        self._is_within_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: events.Event) -> None:
        """Take an event of a run; waits for nothing."""
        if isinstance(event, events.OutputArrived):
            self._take(event)
        elif isinstance(event, (events.JobReturned, events.JobRequeued)):
            for key in [key for key in self._sources if key[0] == event.num]:
                self._end(self._sources.pop(key))

    def _take(self, event: events.OutputArrived) -> None:
        key = (event.num, event.attempt, event.stream)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _Source(_opened(event.file), event.stream, self._sinks[event.stream])
        data = event.data
        begin, end = event.offset, event.offset + len(data)
        with self._condition:
            last = source.last
            is_next = last is not None and bool(self._waiting) and self._waiting[-1] is last
            if source.fd < 0:
                self._put(_Piece(source, begin, end, data))
            elif last is not None and last.end == begin and (is_next or len(self._waiting) > _MOST_WAITING):
                last.end = end
            else:
                source.last = _Piece(source, begin, end)
                self._put(source.last)

    def _end(self, source: _Source) -> None:
        def end() -> None:
            if source.to.is_terminal:
                self._show(source.to, source.filter.finish())
            if source.fd >= 0:
                os.close(source.fd)

        with self._condition:
            self._put(end)

    def enqueue(self, say: Callable[[], None]) -> None:
        """Have something of ours said on stderr, behind what has come so far, at the beginning of a line."""

        def begin_line_and_say() -> None:
            if self._is_within_line and self._sinks["stderr"].is_terminal:
                self._is_within_line = False
                self._sinks["stderr"].write(b"\n")
            say()

        with self._condition:
            self._put(begin_line_and_say)

    def wait_shown(self) -> None:
        """Wait until all that has come is written; a reader that takes nothing is not waited for."""
        with self._condition:
            while self._is_running:
                done = self._done
                if not self._condition.wait_for(lambda: self._done != done or not self._is_running, _PATIENCE):  # noqa: B023
                    return

    def has_shown(self, text: str) -> bool:
        """The job has said this on its stderr, not long before its end: a traceback need not be told twice."""
        return bool(text.strip()) and text.strip().encode("utf-8", "replace") in self._tail

    @property
    def _is_running(self) -> bool:
        return bool(self._waiting or self._is_busy) and self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Write all that has come, however long its reader takes.

        Raises:
            KeyboardInterrupt: Ctrl-C; the rest is not shown.
        """
        for source in self._sources.values():
            self._end(source)
        self._sources.clear()
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
        try:
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(0.2)
        except KeyboardInterrupt:
            for sink in self._sinks.values():
                sink.is_closed = True
            raise

    # -- the thread ----------------------------------------------------------------------------------------------

    def _put(self, item: _Piece | Callable[[], None]) -> None:
        self._waiting.append(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="live-output", daemon=True)
            self._thread.start()
        self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                if isinstance(item, _Piece) and item.source.last is item:
                    item.source.last = None
                self._is_busy = True
            try:
                if isinstance(item, _Piece):
                    self._show_piece(item)
                else:
                    item()
            finally:
                with self._condition:
                    self._is_busy = False
                    self._step()

    def _step(self) -> None:
        self._done += 1
        self._condition.notify_all()

    def _show_piece(self, piece: _Piece) -> None:
        source = piece.source
        while piece.begin < piece.end and not source.to.is_closed:
            size = min(_PIECE, piece.end - piece.begin)
            if piece.data is None:
                data = os.pread(source.fd, size, piece.begin)
            else:
                data, piece.data = piece.data[:size], piece.data[size:]
            if not data:
                return  # beyond its cap nothing is kept
            piece.begin += len(data)
            if source.stream == "stderr":
                self._tail = (self._tail + data)[-_TAIL:]
            if source.to.is_terminal:
                self._show(source.to, source.filter.feed(data))
            else:
                source.to.write(data)
            with self._condition:
                self._step()

    def _show(self, to: _Sink, text: str) -> None:
        if not text:
            return
        if not self._was_on_terminal:
            self._was_on_terminal = True
            self.before_terminal()
        to.write(text.encode("utf-8", "backslashreplace"))
        seen = _COLOURS.sub("", text)
        if seen:
            self._is_within_line = not seen.endswith("\n")


def _opened(path: str) -> int:
    """The file, open to be read; -1 where it is not there: then what has come is kept in memory until it is shown."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) if path else -1
    except OSError:
        return -1


class LineCutter:
    """Makes whole lines, fit to be shown, of what many jobs print; of a line that a job wrote over what it showed last."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, str], bytes] = {}

    def feed(self, num: int, stream: str, data: bytes) -> list[str]:
        """The lines that are whole now."""
        whole, newline, rest = (self._begun.pop((num, stream), b"") + data).rpartition(b"\n")
        if len(rest) > _MOST_OF_A_LINE:
            rest = rest[rest.rfind(b"\r", 0, -1) + 1 :]
        if len(rest) > _MOST_OF_A_LINE:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        if rest:
            self._begun[num, stream] = rest
        return clean_lines(_text(whole + newline)) if newline else []

    def finish(self, num: int) -> list[str]:
        """A job prints no more: what it left without a newline."""
        rest = [self._begun.pop((num, stream), b"") for stream in ("stdout", "stderr")]
        return [line for one in rest if one for line in clean_lines(_text(one))]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


class LinePrinter:
    """An observer for Python: what jobs print, on sys.stdout, each line with its job and host, as `multirun --live` shows it."""

    def __init__(self) -> None:
        self._cutter = LineCutter()
        self._hosts: dict[int, str] = {}

    def __call__(self, event: events.Event) -> None:
        """Print the lines that are whole."""
        lines: list[str] = []
        if isinstance(event, events.OutputArrived):
            self._hosts[event.num] = event.host
            lines = self._cutter.feed(event.num, event.stream, event.data)
        elif isinstance(event, (events.JobReturned, events.JobRequeued)):
            lines = self._cutter.finish(event.num)
        else:
            return
        host = self._hosts.get(event.num, event.host)
        if not isinstance(event, events.OutputArrived):
            self._hosts.pop(event.num, None)
        for line in lines:
            print(f"[{event.num} {host}] {line}", flush=True)

    def wait_shown(self) -> None:
        """It has been."""

    def close(self) -> None:
        """Nothing waits."""
