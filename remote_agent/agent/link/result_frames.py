"""Frames for what jobs leave: long results, output files, stdout and stderr. They are sources of an `outbox`.

Rule: a file that cannot be read is reported to the controller by name, and everything else is still sent.

    files      [path, mode, size, mtime] of complete small files
    chunk      a part of a long file; from byte 0 again if the file has changed
    rest       a part of what a file has beyond the bytes that the controller holds
    tree       links within the folder as [path, text], folders as [path, mtime]; after all files
    files_end  files that were not sent (`refused`), inconsistent copies (`noted`), sizes
"""

import json
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from remote_agent.agent.link.file_frames import FileFrames
from remote_agent.agent.link.outbox import OpenFile, Piece, Slice
from remote_agent.agent.link.output_tree import MAX_NAMES, OutputTree, Refusals, Selection
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Chunk, FilesEnd, Output, Tree
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.held import HeldFile

__all__ = ["as_written", "output_frames", "result_frames", "stream_frames"]

#: How many patterns that matched nothing are reported.
_MAX_UNMATCHED = 1000
#: How many links or folders a frame has.
_MAX_ENTRIES = 5000


def result_frames(attempt_id: str, parts: ResultParts) -> Iterator[Piece]:
    """Yield a large result in chunks. The first one says where its parts are, so that each part can be checked when it arrives.

    Raises:
        OSError: its file cannot be read to its end.
    """
    file, size = OpenFile(parts.file), parts.size
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
            "hole": 0,
            "parts": parts.without_file().to_json() if offset == 0 else None,
        }
        yield wire.encode_head(header, length), Slice(file, offset, length)


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
    held: Optional[Dict[str, HeldFile]] = None,
    left: Optional[Dict[str, Any]] = None,
    skips_holes: bool = False,
) -> Iterator[Piece]:
    """Yield the rest of stdout and stderr, then the files of the output directory, then the end mark.

    is_made: whether the job had its output directory. If the job has moved or removed it since, `noted` in the end mark
    says so.
    held: path -> what the controller holds of a file. If these are its first bytes, only the rest is sent.
    left: what the run's jobs have written beside their code; see `LeftFiles.told`.
    skips_holes: whether the controller understands chunks without the holes of a file.

    The end mark has `refused`: what cannot be sent (a link that leads out, a device, an unreadable file, a name that is
    not text); `unmatched`: the positions of the patterns that matched nothing; and `cut`: what was killed while it may
    still have been writing.
    """
    sizes: Dict[str, Any] = {}
    refused = Refusals()
    yield from _rest_of_streams(attempt_id, streams, sent, dropped, cap, refused, sizes)
    selection = Selection(patterns)
    files = FileFrames(attempt_id, refused, held or {}, skips_holes)
    if folder is not None and patterns is not False:
        if is_made and not os.path.isdir(folder):
            files.noted.add("the output directory", "is not there any more: the job moved or removed it")
        tree = OutputTree(folder, refused)
        for relative, path in tree.files():
            if selection.select(relative):
                tree.add_file(relative)
                yield from files.frames(relative, path)
        links, copied = tree.links(selection)
        for relative, path in copied:
            yield from files.frames(relative, path)
        yield from files.rest()
        # The deepest folders come first, because making something in a folder changes its time.
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
        "left": left,
    }
    yield wire.encode(end)


def _rest_of_streams(
    attempt_id: str,
    streams: Dict[str, str],
    sent: Dict[str, int],
    dropped: Dict[str, int],
    cap: Optional[int],
    refused: Refusals,
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
    """Return stdout and stderr in the order of their last writes. Two files say no more about the order of their lines."""

    def written_at(item: Tuple[str, str]) -> int:
        try:
            return os.stat(item[1]).st_mtime_ns
        except OSError:
            return 0  # the job has closed it, or printed nothing

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


def _in_parts(entries: List[List[Any]]) -> Iterator[List[List[Any]]]:
    """Yield all entries in parts, each with as many as fit into a header."""
    part: List[List[Any]] = []
    size = 0
    for entry in entries:
        length = len(json.dumps(entry)) + 2
        if part and (size + length > MAX_NAMES or len(part) >= _MAX_ENTRIES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part
