"""The content of frames of output files, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_agent.agent.link.outbox import Piece, Slice
from remote_agent.agent.link.result_frames import output_frames
from remote_agent.protocol import wire


def frames(source: Iterator[Piece]) -> list[wire.Frame]:
    """All frames of a source."""
    return wire.Decoder().feed(b"".join(map(joined, source)))


def joined(piece: Piece) -> bytes:
    """A frame in one piece."""
    return piece if isinstance(piece, bytes) else b"".join(map(content, piece))


def content(piece: bytes | Slice) -> bytes:
    """The bytes that are sent of it."""
    if isinstance(piece, bytes):
        return piece
    with tempfile.TemporaryFile() as file:
        while len(piece):
            piece = piece.behind(piece.send(file.fileno()))
        file.seek(0)
        return file.read()


def collected(folder: Path | None, **more: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """(files, end mark) that output_frames sends."""
    options = {"streams": {}, "sent": {}, "patterns": True, "dropped": {}, **more}
    made = frames(output_frames("0.1", folder=None if folder is None else str(folder), **options))
    files: dict[str, bytes] = {}
    for frame in made:
        if frame.header["t"] == "files":
            start = 0
            for path, _, size, _ in frame.header["items"]:
                files[path] = frame.payload[start : start + size]
                start += size
        elif frame.header["t"] == "chunk":
            if frame.header["offset"] == 0:
                files[frame.header["path"]] = b""
            assert len(files[frame.header["path"]]) == frame.header["offset"]
            files[frame.header["path"]] += frame.payload
    assert made[-1].header["t"] == "files_end"
    return files, made[-1].header


def tree(folder: Path, **more: Any) -> tuple[dict[str, str], dict[str, int]]:
    """(links, folders) that output_frames sends."""
    options = {"streams": {}, "sent": {}, "patterns": True, "dropped": {}, **more}
    links: dict[str, str] = {}
    folders: dict[str, int] = {}
    for frame in frames(output_frames("0.1", folder=str(folder), **options)):
        if frame.header["t"] == "tree":
            links.update(frame.header.get("links", []))
            folders.update(frame.header.get("folders", []))
    return links, folders
