"""Frames of what jobs leave: long results, output files, what was printed; sources for an `outbox`.

Rule: what cannot be read is named to the controller and costs nothing else.
"""

import fnmatch
import json
import os
import stat
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from remote_agent import wire
from remote_agent.outbox import OpenFile, Piece, Slice

__all__ = ["as_written", "output_frames", "outputs_root", "result_frames", "stream_frames", "wanted"]

#: Files up to this size travel many in a frame.
_SMALL = 1 << 16
#: Patterns of which it is told that they matched nothing.
_MOST_UNMATCHED = 1000
#: Bytes of a frame's header that names may take.
_NAMES = wire.MAX_HEADER // 2


def result_frames(attempt_id: str, path: str, size: int, parts: Optional[Dict[str, Any]] = None) -> Iterator[Piece]:
    """A large result, in chunks; the first one says where its parts lie, so that they can be checked as they come.

    Raises:
        OSError: it cannot be read, or not to its end.
    """
    file = OpenFile(path)
    for offset in range(0, size, wire.CHUNK):
        length = min(wire.CHUNK, size - offset)
        if file.size < offset + length:
            raise OSError(0, "it is shorter than it was")
        header = {"t": "chunk", "attempt": attempt_id, "kind": "result", "size": size, "offset": offset}
        if offset == 0 and parts:
            header["parts"] = parts
        yield wire.encode_head(header, length), Slice(file, offset, length)


def wanted(path: str, patterns: Union[bool, List[str]]) -> bool:
    """A file of the output directory is to come back."""
    if isinstance(patterns, bool):
        return patterns
    return any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern.rstrip("/") + "/*")


class _Chosen:
    """What the patterns choose; `unmatched`: places of those that have chosen nothing yet."""

    def __init__(self, patterns: Union[bool, List[str]]) -> None:
        self._patterns = patterns
        self.unmatched = set() if isinstance(patterns, bool) else set(range(len(patterns)))

    def takes(self, path: str) -> bool:
        """A file is to come back."""
        if not wanted(path, self._patterns):
            return False
        if not isinstance(self._patterns, bool):
            self.unmatched -= {place for place in self.unmatched if _matches(path, self._patterns[place])}
        return True


def outputs_root(spool: str, attempt: int) -> str:
    """The folder below which an attempt's relative output directory lies; each attempt number has its own."""
    return os.path.join(spool, "outputs" if attempt == 1 else "outputs.{}".format(attempt))


class _Refusals:
    """Files that are not sent, by name and why; their number is told where the names would not fit a frame."""

    def __init__(self) -> None:
        self.named: List[List[str]] = []
        self._size = 0
        self._more = 0

    def add(self, path: str, why: Union[str, OSError]) -> None:
        if isinstance(why, OSError):
            why = why.strerror or str(why)
        entry = [path, why]
        self._size += len(json.dumps(entry))
        if self._size < _NAMES:
            self.named.append(entry)
        else:
            self._more += 1

    def all(self) -> List[List[str]]:
        if not self._more:
            return self.named
        return [*self.named, ["({} more)".format(self._more), "refused, too"]]


def output_frames(
    attempt_id: str,
    streams: Dict[str, str],
    sent: Dict[str, int],
    folder: Optional[str],
    patterns: Union[bool, List[str]],
    dropped: Dict[str, int],
    cap: Optional[int] = None,
) -> Iterator[Piece]:
    """The rest of stdout and stderr, then the files of the output directory, then the end mark.

    What cannot be sent (a link, a device, unreadable, a name that is no text) is named in the end mark's `refused`; which of the
    patterns matched no file, by their place in the list, in its `unmatched`.
    """
    sizes: Dict[str, Any] = {}
    refused = _Refusals()
    for stream, path in as_written(streams):
        try:
            for frame in stream_frames(attempt_id, stream, path, sent, cap):
                yield frame
        except OSError as error:
            refused.add(stream, error)
        sizes[stream] = sent[stream]
        if dropped.get(stream):
            sizes[stream + "_dropped"] = dropped[stream]
            yield _cut_mark(attempt_id, stream, sent[stream], dropped[stream])
    count = total = 0
    chosen = _Chosen(patterns)
    if folder is not None and patterns is not False:
        small = _Small(attempt_id)
        for relative, path, mode, size in _walk(folder, refused):
            if not chosen.takes(relative):
                continue
            count += 1
            total += size
            if size <= _SMALL:
                data = _read_small(path, relative, refused)
                if data is None:
                    continue
                if not small.fits(relative, data):
                    yield small.frame()
                small.add(relative, mode, data)
                continue
            for frame in _large_file(attempt_id, relative, path, mode, refused):
                yield frame
        if small.items:
            yield small.frame()
    sizes["files"] = count
    sizes["bytes"] = total
    end: Dict[str, Any] = {"t": "files_end", "attempt": attempt_id, "refused": refused.all(), "sizes": sizes}
    if folder is not None and chosen.unmatched:
        end["unmatched"] = sorted(chosen.unmatched)[:_MOST_UNMATCHED]
    yield wire.encode(end)


def as_written(streams: Dict[str, str]) -> List[Tuple[str, str]]:
    """Stdout and stderr, first the one that was last written to longer ago: two files tell no more of their common order."""

    def written_at(item: Tuple[str, str]) -> int:
        try:
            return os.stat(item[1]).st_mtime_ns
        except OSError:
            return 0  # there is none: the job closed it, or printed nothing

    return sorted(streams.items(), key=written_at)


def stream_frames(
    attempt_id: str, stream: str, path: str, sent: Dict[str, int], cap: Optional[int] = None
) -> Iterator[Piece]:
    """What a stream file has beyond `sent[stream]`, which advances, up to `cap` bytes.

    Raises:
        OSError: it cannot be read.
    """
    try:
        if os.stat(path).st_size <= sent[stream]:
            return  # most jobs print nothing
        file = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        return
    with file:
        while True:
            start = sent[stream]
            size = wire.CHUNK if cap is None else min(wire.CHUNK, cap - start)
            if size <= 0:
                return
            file.seek(start)
            data = file.read(size)
            if not data or sent[stream] != start:
                return
            sent[stream] += len(data)
            yield wire.encode({"t": "output", "attempt": attempt_id, "stream": stream, "offset": start}, data)


def _cut_mark(attempt_id: str, stream: str, offset: int, dropped: int) -> bytes:
    """Says in the stream itself that it does not end there."""
    text = "\n[hydra-remote-launcher: {} was cut here; about {} bytes beyond its cap were dropped]\n".format(
        stream, dropped
    )
    header = {"t": "output", "attempt": attempt_id, "stream": stream, "offset": offset}
    return wire.encode(header, text.encode("utf-8"))


class _Small:
    """Small files that travel in one frame."""

    def __init__(self, attempt_id: str) -> None:
        self._attempt_id = attempt_id
        self._clear()

    def _clear(self) -> None:
        self.items: List[List[Any]] = []
        self._data: List[bytes] = []
        self._size = self._names = 0

    def fits(self, relative: str, data: bytes) -> bool:
        """There is room for one more."""
        names = self._names + len(json.dumps(relative)) + 40
        return not self.items or (self._size + len(data) <= wire.CHUNK and names < _NAMES and len(self.items) < 500)

    def add(self, relative: str, mode: int, data: bytes) -> None:
        """One more."""
        self.items.append([relative, mode, len(data)])
        self._data.append(data)
        self._size += len(data)
        self._names += len(json.dumps(relative)) + 40

    def frame(self) -> bytes:
        """All so far, as a frame."""
        frame = wire.encode({"t": "files", "attempt": self._attempt_id, "items": self.items}, b"".join(self._data))
        self._clear()
        return frame


def _walk(folder: str, refused: _Refusals) -> Iterator[Tuple[str, str, int, int]]:
    """Regular files below folder as (relative path, path, mode, size); what is not one is refused by name."""
    root = os.path.realpath(folder)
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused.add(_told(below), error)
            continue
        for entry in entries:
            relative = os.path.join(below, entry.name)
            if _told(relative) != relative:
                refused.add(_told(relative), "its name is not UTF-8")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                path = entry.path
                if stat.S_ISLNK(status.st_mode):
                    path = os.path.realpath(path)
                    if not path.startswith(root + os.sep) or not os.path.exists(path):
                        refused.add(relative, "a link out of the output directory, or to nothing")
                        continue
                    status = os.stat(path)
                    if stat.S_ISDIR(status.st_mode):
                        refused.add(relative, "a link to a folder")
                        continue
            except OSError as error:
                refused.add(relative, error)
                continue
            if stat.S_ISDIR(status.st_mode):
                stack.append(relative)
            elif stat.S_ISREG(status.st_mode):
                yield relative, path, stat.S_IMODE(status.st_mode), status.st_size
            else:
                refused.add(relative, "not a regular file")


def _told(path: str) -> str:
    """The path as text that can be sent."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_small(path: str, relative: str, refused: _Refusals) -> Optional[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        refused.add(relative, error)
        return None
    try:
        return os.read(fd, wire.CHUNK)
    except OSError as error:
        refused.add(relative, error)
        return None
    finally:
        os.close(fd)


def _large_file(attempt_id: str, relative: str, path: str, mode: int, refused: _Refusals) -> Iterator[Piece]:
    """Read here, not sent by the kernel: others may write to it, and there is no digest to give that away."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        refused.add(relative, error)
        return
    with os.fdopen(fd, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                data = file.read(min(wire.CHUNK, size - offset))
            except OSError as error:
                refused.add(relative, error)
                return
            if not data:
                refused.add(relative, "became shorter while it was sent")
                return
            header = {"t": "chunk", "attempt": attempt_id, "kind": "file", "path": relative, "mode": mode}
            yield wire.encode_head(dict(header, size=size, offset=offset), len(data)), data
            offset += len(data)
