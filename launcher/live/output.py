"""Shows what one job prints while it runs, on our own stdout and stderr.

Rule: a slow or dead reader delays nothing and costs no memory. `LiveOutput` writes in its own thread, and reads waiting output from
the job's files here. A pipe or a file gets the bytes; a terminal gets what `launcher.live.terminal_filter` lets through.
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
from typing import TYPE_CHECKING, TextIO

from launcher import events
from launcher.live.terminal_filter import TerminalFilter

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LiveOutput"]

#: How many bytes are read and written at once.
_PIECE = 1 << 18
#: How many seconds `wait_shown` waits for a reader that reads nothing.
_PATIENCE = 1.0
#: How many pieces may wait in their common order. Beyond that, stdout and stderr are each in order, but not with each other.
_MOST_WAITING = 10_000
#: How many bytes of stderr are remembered, to recognise a traceback.
_TAIL = 1 << 17
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


@dataclass(eq=False)
class _Source:
    """One stream of one attempt: its file here, and the state of a terminal's filter."""

    fd: int
    stream: str
    to: _Sink
    filter: TerminalFilter = field(default_factory=TerminalFilter)
    #: Its last waiting piece.
    last: _Piece | None = None


@dataclass(eq=False)
class _Piece:
    """Bytes that wait to be shown: in the source's file from `begin` to `end`, or in `data`."""

    source: _Source
    begin: int
    end: int
    data: bytes | None = None


class _Sink:
    """One of our two streams.

    If nobody reads the pipe, or its disk is full, output is dropped here. The job's folder has it all the same.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._fd = _descriptor(stream)
        self._text = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        #: Whether people read it: a terminal, or a stream that takes only text, such as a notebook's.
        self.is_terminal = stream is not None and (stream.isatty() or not hasattr(stream, "buffer"))
        self.is_closed = stream is None
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Write all of it, however long its reader takes."""
        if self.is_closed or self._stream is None:
            return
        try:
            if not self._is_begun:
                # Earlier output of this process comes first.
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
                f"launcher: the job's output cannot be written here any more ({error.strerror}); the job goes on, and its output is "
                "kept in its folder",
                file=sys.stderr,
            )
        # Printing there in a hook must not fail, neither now nor at exit (docs.python.org, `signal`, on SIGPIPE).
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), self._fd)


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor to which a stream writes; None if it has none. A notebook's stream names one, but does not write to it."""
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
            # Our parent has made the descriptor non-blocking.
            select.select([], [fd], [])


class LiveOutput:
    """Shows one job's stdout and stderr on ours. An observer, which also writes other messages to stderr, in order with the output.

    Args:
        stdout, stderr: None drops what would go there.
        before_terminal: called once, before anything is written to a terminal.
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
        #: The last part of the job's stderr that was shown.
        self._tail = b""
        #: Whether the terminal's cursor is within a line, so that our messages must begin a new one.
        self._is_within_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: events.Event) -> None:
        """Take an event of a run. Never waits."""
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
        """Call `say` after the output so far is written, and at the beginning of a line. It writes our own message to stderr."""

        def begin_line_and_say() -> None:
            if self._is_within_line and self._sinks["stderr"].is_terminal:
                self._is_within_line = False
                self._sinks["stderr"].write(b"\n")
            say()

        with self._condition:
            self._put(begin_line_and_say)

    def wait_shown(self) -> None:
        """Wait until all output so far is written. It does not wait for a reader that reads nothing."""
        with self._condition:
            while self._is_running:
                done = self._done
                if not self._condition.wait_for(lambda: self._done != done or not self._is_running, _PATIENCE):  # noqa: B023
                    return

    def has_shown(self, text: str) -> bool:
        """Whether the job has written this text to stderr shortly before its end, so that a traceback need not be shown twice."""
        return bool(text.strip()) and text.strip().encode("utf-8", "replace") in self._tail

    @property
    def _is_running(self) -> bool:
        return bool(self._waiting or self._is_busy) and self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Write all output so far, however long its reader takes.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C. The rest is not shown.
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
                return  # the file ends at the output's cap
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
    """Open the file for reading. Returns -1 if it does not exist: output is then kept in memory until it is shown."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) if path else -1
    except OSError:
        return -1
