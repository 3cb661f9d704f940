"""The output directory of a job: which of its files come back, and its folders and links.

Rule: nothing outside the folder is read. A file that was asked for and cannot come back is reported by name.
"""

import json
import os
import stat
from typing import Iterator, List, Optional, Set, Tuple, Union

from remote_agent.protocol import wire
from remote_agent.shared.globs import shell_glob

__all__ = ["MAX_NAMES", "OutputTree", "Refusals", "Selection", "wanted"]

#: Our own folder, which is not sent: if a job starts a run, the journal of that run is there.
_OUR_FOLDER = ".launcher"
#: How many bytes of a frame's header names may take.
MAX_NAMES = wire.MAX_HEADER // 2


def wanted(path: str, patterns: Union[bool, List[str]]) -> bool:
    """Whether a file of the output directory should come back."""
    if isinstance(patterns, bool):
        return patterns
    return any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    return shell_glob(pattern).matches(path) or shell_glob(pattern.rstrip("/") + "/*").matches(path)


class Selection:
    """Selects files by patterns. `unmatched`: the positions of the patterns that have matched nothing yet."""

    def __init__(self, patterns: Union[bool, List[str]]) -> None:
        self._patterns = patterns
        #: Whether everything comes back.
        self.has_all = patterns is True
        self.unmatched = set() if isinstance(patterns, bool) else set(range(len(patterns)))

    def includes(self, path: str) -> bool:
        """Whether a file of this path would come back."""
        return wanted(path, self._patterns)

    def select(self, path: str) -> bool:
        """Whether this file, link or folder should come back. The patterns that match it are no longer unmatched."""
        if not wanted(path, self._patterns):
            return False
        if not isinstance(self._patterns, bool):
            self.unmatched -= {index for index in self.unmatched if _matches(path, self._patterns[index])}
        return True


class Refusals:
    """Files that are not sent, each with the reason. Names that do not fit into a frame are only counted."""

    def __init__(self, room: int = MAX_NAMES) -> None:
        self.named: List[List[str]] = []
        self._room = room
        self._size = 0
        self._more = 0

    def add(self, path: str, why: Union[str, OSError]) -> None:
        """Add a file."""
        if isinstance(why, OSError):
            why = why.strerror or str(why)
        entry = [path, why]
        self._size += len(json.dumps(entry))
        if self._size < self._room:
            self.named.append(entry)
        else:
            self._more += 1

    def all(self, more: str = "refused, too") -> List[List[str]]:
        """Return the names with their reasons, and last how many more there are."""
        if not self._more:
            return self.named
        return [*self.named, ["({} more)".format(self._more), more]]


class OutputTree:
    """The folders and links of an output directory. They are sent after all files."""

    def __init__(self, folder: str, refused: Refusals) -> None:
        self.folder = folder
        self.root = os.path.realpath(folder)
        #: (path, mtime), each folder before those in it.
        self.folders: List[Tuple[str, int]] = []
        #: Links in the order in which they were found.
        self.found: List[str] = []
        self._refused = refused
        self._sent: Set[str] = set()
        self._folders_with_files: Set[str] = set()

    def files(self) -> Iterator[Tuple[str, str]]:
        """Yield the regular files below the folder as (relative path, path). Records links and folders, and refuses everything else."""
        stack = [""]
        while stack:
            below = stack.pop()
            try:
                with os.scandir(os.path.join(self.folder, below)) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._refused.add(_as_utf8(below), error)
                continue
            for entry in entries:
                relative = os.path.join(below, entry.name)
                if _as_utf8(relative) != relative:
                    self._refused.add(_as_utf8(relative), "its name is not UTF-8")
                    continue
                if entry.name.lower() == _OUR_FOLDER:
                    self._refused.add(relative, "a reserved name: a run that a job started keeps its journal there")
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._refused.add(relative, error)
                    continue
                if stat.S_ISLNK(status.st_mode):
                    self.found.append(relative)
                elif stat.S_ISDIR(status.st_mode):
                    stack.append(relative)
                    self.folders.append((relative, status.st_mtime_ns))
                elif stat.S_ISREG(status.st_mode):
                    yield relative, entry.path
                else:
                    self._refused.add(relative, "not a regular file")

    def add_file(self, relative: str) -> None:
        """Record that this file comes back."""
        self._sent.add(relative)
        while os.sep in relative:
            relative = os.path.dirname(relative)
            self._folders_with_files.add(relative)

    def links(self, selection: Selection) -> Tuple[List[List[str]], List[Tuple[str, str]]]:
        """Return the links as (path, text), and those that are sent as a copy of their target, because the target does not come back."""
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
                self._refused.add(relative, "a link to {}, which is not sent back".format(_as_utf8(goal)))
        return links, copied

    def _text(self, relative: str) -> Tuple[Optional[str], str]:
        """Return the text that a link should have elsewhere, and its target relative to the folder. None: it leads out of the folder.

        An absolute link into the folder, or one that passes through other links, becomes the shortest relative path.
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
    """Whether a link's text first goes up, but not out of the folder, and then down. Then no other link can divert it."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return not text.startswith("/") and up <= depth and ".." not in parts[up:]


def _as_utf8(path: str) -> str:
    """Return the path as text that can be sent."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
