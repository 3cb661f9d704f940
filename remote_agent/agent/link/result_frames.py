"""Frames for what jobs leave: long results, output files, what was printed. They are sources of an `outbox`.

Rule: a file that cannot be read is reported to the controller by name, and everything else is still sent. A file is sent as it was
at one moment: if it changes while it is read, it is read again, and if it changes every time, that is reported.

    files      [path, mode, size, mtime] of complete small files
    chunk      a part of a long file; from byte 0 again if the file has changed
    tree       links within the folder as [path, text], folders as [path, mtime]; after all files
    files_end  files that were not sent (`refused`), inconsistent copies (`noted`), sizes
"""

import json
import os
import stat
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple, Union

from remote_agent.agent.link.outbox import OpenFile, Piece, Slice
from remote_agent.shared import wire
from remote_agent.shared.globs import shell_glob
from remote_agent.shared.messages import Chunk, FilesEnd, Output, Tree

__all__ = ["as_written", "output_frames", "result_frames", "stream_frames", "wanted"]

#: Files up to this size travel many in a frame.
_SMALL = 1 << 16
#: How often a file is read that changes each time.
_TRIES = 3
#: Our own folder: a run that a job started has one, with its journal in it.
_OUR_FOLDER = ".launcher"
#: Patterns of which it is told that they matched nothing.
_MAX_UNMATCHED = 1000
#: Bytes of a frame's header that names may take.
_MAX_NAMES = wire.MAX_HEADER // 2
#: Links or folders of a frame.
_MAX_ENTRIES = 5000


def result_frames(attempt_id: str, path: str, size: int, parts: Optional[Dict[str, Any]] = None) -> Iterator[Piece]:
    """Yield a large result in chunks. The first one says where its parts are, so that they can be checked as they come.

    Raises:
        OSError: it cannot be read to its end.
    """
    file = OpenFile(path)
    for offset in range(0, size, wire.CHUNK):
        length = min(wire.CHUNK, size - offset)
        if file.size < offset + length:
            raise OSError(0, "it has become shorter")
        header: Chunk = {
            "t": "chunk",
            "attempt": attempt_id,
            "kind": "result",
            "path": "",
            "mode": 0,
            "mtime": None,
            "size": size,
            "offset": offset,
            "parts": parts if offset == 0 else None,
        }
        yield wire.encode_head(header, length), Slice(file, offset, length)


def wanted(path: str, patterns: Union[bool, List[str]]) -> bool:
    """Whether a file of the output directory is to be sent back."""
    if isinstance(patterns, bool):
        return patterns
    return any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    return shell_glob(pattern).matches(path) or shell_glob(pattern.rstrip("/") + "/*").matches(path)


class _Selection:
    """The files that patterns select. `unmatched`: the positions of patterns that have matched nothing yet."""

    def __init__(self, patterns: Union[bool, List[str]]) -> None:
        self._patterns = patterns
        #: Everything comes back.
        self.has_all = patterns is True
        self.unmatched = set() if isinstance(patterns, bool) else set(range(len(patterns)))

    def includes(self, path: str) -> bool:
        """Whether the file would be sent back."""
        return wanted(path, self._patterns)

    def select(self, path: str) -> bool:
        """Whether a file, link or folder is to be sent back. Records which pattern matched."""
        if not wanted(path, self._patterns):
            return False
        if not isinstance(self._patterns, bool):
            self.unmatched -= {index for index in self.unmatched if _matches(path, self._patterns[index])}
        return True


class _Refusals:
    """Names of files that are not sent, with the reasons.

    If the names do not fit into a frame, their number is sent.
    """

    def __init__(self, room: int = _MAX_NAMES) -> None:
        self.named: List[List[str]] = []
        self._room = room
        self._size = 0
        self._more = 0

    def add(self, path: str, why: Union[str, OSError]) -> None:
        if isinstance(why, OSError):
            why = why.strerror or str(why)
        entry = [path, why]
        self._size += len(json.dumps(entry))
        if self._size < self._room:
            self.named.append(entry)
        else:
            self._more += 1

    def all(self, more: str = "refused, too") -> List[List[str]]:
        if not self._more:
            return self.named
        return [*self.named, ["({} more)".format(self._more), more]]


def output_frames(
    attempt_id: str,
    streams: Dict[str, str],
    sent: Dict[str, int],
    folder: Optional[str],
    patterns: Union[bool, List[str]],
    dropped: Dict[str, int],
    cap: Optional[int] = None,
    cut: Optional[Dict[str, Any]] = None,
    is_made: bool = False,
) -> Iterator[Piece]:
    """Yield the rest of stdout and stderr, then the files of the output directory, then the end mark.

    is_made: whether the job had its output directory. If the job has moved or removed it since, `noted` in the end mark
    says so.

    The end mark has `refused`: what cannot be sent (a link that leads out, a device, an unreadable file, a name that is
    not text); `unmatched`: the positions of the patterns that matched nothing; and `cut`: what was killed while it may
    still have been writing.
    """
    sizes: Dict[str, Any] = {}
    refused = _Refusals()
    yield from _rest_of_streams(attempt_id, streams, sent, dropped, cap, refused, sizes)
    selection = _Selection(patterns)
    files = _Files(attempt_id, refused)
    if folder is not None and patterns is not False:
        if is_made and not os.path.isdir(folder):
            files.noted.add("the output directory", "is not there any more: the job moved or removed it")
        tree = _Tree(folder, refused)
        for relative, path in _walk(tree, refused):
            if selection.select(relative):
                tree.add_file(relative)
                yield from files.frames(relative, path)
        links, copied = tree.links(selection)
        for relative, path in copied:
            yield from files.frames(relative, path)
        yield from files.rest()
        # The deepest folders first: what is made in one changes its time.
        folders = [[one, mtime] for one, mtime in reversed(tree.folders) if selection.select(one)]
        trees: List[Tree] = [
            {"t": "tree", "attempt": attempt_id, "links": part, "folders": []} for part in _in_parts(links)
        ]
        trees += [{"t": "tree", "attempt": attempt_id, "links": [], "folders": part} for part in _in_parts(folders)]
        yield from map(wire.encode, trees)
    sizes["files"] = files.count
    sizes["bytes"] = files.total
    end: FilesEnd = {
        "t": "files_end",
        "attempt": attempt_id,
        "refused": refused.all(),
        "sizes": sizes,
        "cut": cut,
        "noted": files.noted.all("more are like that"),
        "unmatched": sorted(selection.unmatched)[:_MAX_UNMATCHED] if folder is not None else [],
    }
    yield wire.encode(end)


def _rest_of_streams(
    attempt_id: str,
    streams: Dict[str, str],
    sent: Dict[str, int],
    dropped: Dict[str, int],
    cap: Optional[int],
    refused: _Refusals,
    sizes: Dict[str, Any],
) -> Iterator[Piece]:
    for stream, path in as_written(streams):
        try:
            yield from stream_frames(attempt_id, stream, path, sent, cap)
        except OSError as error:
            refused.add(stream, error)
        sizes[stream] = sent[stream]
        if dropped.get(stream):
            sizes[stream + "_dropped"] = dropped[stream]
            yield _cut_mark(attempt_id, stream, sent[stream], dropped[stream])


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
    """Return a line for the stream itself that says that it was cut there."""
    text = "\n[hydra-remote-launcher: {} was cut here; about {} bytes beyond its cap were dropped]\n".format(
        stream, dropped
    )
    header: Output = {"t": "output", "attempt": attempt_id, "stream": stream, "offset": offset}
    return wire.encode(header, text.encode("utf-8"))


class _Small:
    """Small files that are sent in one frame."""

    def __init__(self, attempt_id: str) -> None:
        self._attempt_id = attempt_id
        self._clear()

    def _clear(self) -> None:
        self.items: List[List[Any]] = []
        self._data: List[bytes] = []
        self._size = self._names = 0

    def fits(self, relative: str, data: bytes) -> bool:
        """Whether there is room for one more file."""
        names = self._names + len(json.dumps(relative)) + 60
        return not self.items or (self._size + len(data) <= wire.CHUNK and names < _MAX_NAMES and len(self.items) < 500)

    def add(self, relative: str, watched: "_WatchedFile", data: bytes) -> None:
        """Add one file."""
        self.items.append([relative, watched.mode, len(data), watched.mtime])
        self._data.append(data)
        self._size += len(data)
        self._names += len(json.dumps(relative)) + 60

    def frame(self) -> bytes:
        """Return a frame with all files so far."""
        frame = wire.encode({"t": "files", "attempt": self._attempt_id, "items": self.items}, b"".join(self._data))
        self._clear()
        return frame


class _WatchedFile:
    """An open file that notices whether somebody has written to it since.

    Its time of modification is set back by a nanosecond in the meantime. Some file systems count in ticks of a few
    milliseconds, so a file that is written twice within a tick would keep its time. Most files are that young when
    their job ends.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._first = os.fstat(fd)
        self._is_marked = self._set(self._first.st_mtime_ns - 1)
        now = os.fstat(fd)
        self.mode = stat.S_IMODE(now.st_mode)
        self.size = now.st_size
        self.mtime = self._first.st_mtime_ns
        self._mark = (now.st_size, now.st_mtime_ns)

    def _set(self, mtime: int) -> bool:
        try:
            os.utime(self._fd, ns=(self._first.st_atime_ns, mtime))
        except OSError:
            return False  # somebody else's file, or a disk that is read only: what it has must do
        return True

    @property
    def is_same(self) -> bool:
        """Whether nobody has written to it."""
        now = os.fstat(self._fd)
        return (now.st_size, now.st_mtime_ns) == self._mark

    def restore_time(self) -> None:
        """Restore its time of modification."""
        if self._is_marked and self.is_same:
            self._set(self.mtime)


class _Files:
    """Makes frames of files. It knows what was sent, and what cannot be relied on."""

    def __init__(self, attempt_id: str, refused: _Refusals) -> None:
        self._attempt_id = attempt_id
        self._small = _Small(attempt_id)
        self._refused = refused
        self.noted = _Refusals(_MAX_NAMES // 2)
        self.count = 0
        self.total = 0

    def frames(self, relative: str, path: str) -> Iterator[Piece]:
        """Yield the frames that are due after one more file. A small file may wait for others."""
        self.count += 1
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._refused.add(relative, error)
            return
        with os.fdopen(fd, "rb", buffering=0):
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    self._refused.add(relative, "not a regular file")
                    return
                for left in range(_TRIES - 1, -1, -1):
                    watched = _WatchedFile(fd)
                    frames = self._small_file if watched.size <= _SMALL else self._large_file
                    yield from frames(relative, fd, watched, is_last=not left)
                    if watched.is_same:
                        break
                else:
                    self.noted.add(relative, "was being written each time it was read, so the copy may be a mixture")
                self.total += watched.size
                watched.restore_time()
            except OSError as error:
                self._refused.add(relative, error)

    def _small_file(self, relative: str, fd: int, watched: _WatchedFile, is_last: bool) -> Iterator[Piece]:
        data = _read(fd, watched.size, 0)
        if not is_last and not watched.is_same:
            return
        if not self._small.fits(relative, data):
            yield self._small.frame()
        self._small.add(relative, watched, data)

    def _large_file(self, relative: str, fd: int, watched: _WatchedFile, is_last: bool) -> Iterator[Piece]:
        """Yield the frames of a large file.

        It is read here, and not sent by the kernel, because others may write to it and no digest would show that. If it
        has changed, its last part is not sent, so the file does not appear on the controller.
        """
        header: Chunk = {
            "t": "chunk",
            "attempt": self._attempt_id,
            "kind": "file",
            "path": relative,
            "mode": watched.mode,
            "size": watched.size,
            "mtime": watched.mtime,
            "offset": 0,
            "parts": None,
        }
        offset = 0
        while offset < watched.size:
            data = _read(fd, min(wire.CHUNK, watched.size - offset), offset)
            if not is_last and not watched.is_same:
                return
            if not data:
                raise OSError(0, "it became shorter each time it was sent")
            header["offset"] = offset
            yield wire.encode_head(header, len(data)), data
            offset += len(data)

    def rest(self) -> Iterator[Piece]:
        """Yield the frame of the small files that still wait for others."""
        if self._small.items:
            yield self._small.frame()


def _read(fd: int, size: int, offset: int) -> bytes:
    """Read this many bytes, or as many as there are."""
    data = os.pread(fd, size, offset)
    while data and len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _Tree:
    """The folders and links of an output directory. They are sent after all its files."""

    def __init__(self, folder: str, refused: _Refusals) -> None:
        self.folder = folder
        self.root = os.path.realpath(folder)
        #: (path, mtime), each before those below it.
        self.folders: List[Tuple[str, int]] = []
        #: Links as they were found.
        self.found: List[str] = []
        self._refused = refused
        self._sent: Set[str] = set()
        self._folders_with_files: Set[str] = set()

    def add_file(self, relative: str) -> None:
        """Record that this file is sent."""
        self._sent.add(relative)
        while os.sep in relative:
            relative = os.path.dirname(relative)
            self._folders_with_files.add(relative)

    def links(self, selection: _Selection) -> Tuple[List[List[str]], List[Tuple[str, str]]]:
        """Return links as (path, text), and the links that are sent as the file that they name, because that file
        itself is not sent.
        """
        links, copied = [], []
        for relative in self.found:
            if not selection.select(relative):
                continue
            try:
                text, goal = self._text(relative)
            except OSError as error:
                self._refused.add(relative, error)
                continue
            if text is None:
                self._refused.add(relative, "a link out of the output directory")
            elif _as_utf8(text) != text:
                self._refused.add(relative, "a link to a name that is not UTF-8")
            elif (
                goal in self._sent or goal in self._folders_with_files or selection.has_all or selection.includes(goal)
            ):
                links.append([relative, text])
            elif os.path.isfile(os.path.join(self.root, goal)):
                copied.append((relative, os.path.join(self.root, goal)))
            else:
                self._refused.add(relative, "a link to {}, which does not come back".format(_as_utf8(goal)))
        return links, copied

    def _text(self, relative: str) -> Tuple[Optional[str], str]:
        """Return a link's text, made to lead to the same target on another machine, and that target's path below the
        folder; None if it leads out.

        An absolute link to a target within the folder, or a link through other links, gets the shortest path as its
        text.
        """
        path = os.path.join(self.folder, relative)
        text = os.readlink(path)
        goal = os.path.realpath(path)
        if goal != self.root and not goal.startswith(self.root.rstrip(os.sep) + os.sep):
            return None, ""
        below = os.path.relpath(goal, self.root)
        if _OUR_FOLDER in below.lower().split(os.sep):
            return None, ""
        if not _goes_straight(text, relative.count(os.sep)):
            text = os.path.relpath(goal, os.path.realpath(os.path.dirname(path)))
        return os.path.normpath(text), below


def _goes_straight(text: str, depth: int) -> bool:
    """Whether a link's text goes up within the folder and then down, so that no other link can change its way."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return not text.startswith("/") and up <= depth and ".." not in parts[up:]


def _walk(tree: _Tree, refused: _Refusals) -> Iterator[Tuple[str, str]]:
    """Yield the regular files below the tree's folder as (relative path, path).

    Links and folders go into the tree. Everything else is refused.
    """
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            with os.scandir(os.path.join(tree.folder, below)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused.add(_as_utf8(below), error)
            continue
        for entry in entries:
            relative = os.path.join(below, entry.name)
            if _as_utf8(relative) != relative:
                refused.add(_as_utf8(relative), "its name is not UTF-8")
                continue
            if entry.name.lower() == _OUR_FOLDER:
                refused.add(relative, "a name that is ours: a run that a job started keeps its journal there")
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                refused.add(relative, error)
                continue
            if stat.S_ISLNK(status.st_mode):
                tree.found.append(relative)
            elif stat.S_ISDIR(status.st_mode):
                stack.append(relative)
                tree.folders.append((relative, status.st_mtime_ns))
            elif stat.S_ISREG(status.st_mode):
                yield relative, entry.path
            else:
                refused.add(relative, "not a regular file")


def _in_parts(entries: List[List[Any]]) -> Iterator[List[List[Any]]]:
    """Yield all entries in parts, each with as many as fit into a header."""
    part: List[List[Any]] = []
    size = 0
    for entry in entries:
        length = len(json.dumps(entry)) + 2
        if part and (size + length > _MAX_NAMES or len(part) >= _MAX_ENTRIES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part


def _as_utf8(path: str) -> str:
    """Return the path as text that can be sent."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
