"""What a host must be told before it can run the run's jobs, and the content that it may ask for.

Rule: bytes are read when they are needed, and are sent under their hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from launcher.util.frozen import frozen
from remote_agent.protocol import wire

if TYPE_CHECKING:
    from launcher.agents.environment import Source
    from launcher.code.application.known_imports import ImportFacts
    from remote_agent.protocol.specs.resources import Resources
    from remote_agent.protocol.specs.sync import SyncSpec
    from remote_agent.protocol.specs.zygote import ZygoteSpec

__all__ = ["Blob", "HostPlan", "blob_frames", "content_frames"]


@frozen
class Blob:
    """Bytes that the host may need. They are read when they are needed."""

    sha256: str
    size: int
    read: Callable[[], bytes]


@dataclass
class HostPlan:
    """What a host must be told before it can run the run's jobs."""

    run: str
    slots: int | str | None
    gpus: Any
    zygote: str
    zygote_spec: ZygoteSpec
    #: What each job needs; None for slots as they are. Below: what the user says that the host has.
    needs: Resources | None = None
    size: Resources | None = None
    lease: float | None = None
    live: bool = False
    #: How output files come while their job runs; None for at its end alone.
    sync: SyncSpec | None = None
    #: How to ask the batch system there for allocations; None for a host that runs jobs itself.
    batch: Mapping[str, Any] | None = None
    #: Content by hash that the run's spool needs (the shared payload).
    run_blobs: tuple[Blob, ...] = ()
    #: The name of the code's manifest; None if no code is sent.
    manifest: str | None = None
    #: Content by hash of the code snapshot, and the parts of its manifest: sha256 -> Blob.
    contents: Mapping[str, Blob] = field(default_factory=dict)
    files: int = 0
    #: The environment of packages; None for none. Below: the only Python that it may be made with.
    environment: Source | None = None
    environment_python: str | None = None
    #: The bytes that all environments there may have before this one is built.
    environments_budget: int | None = None
    #: Whether the host may fetch files of it itself, or the beginnings of the addresses from which it may.
    downloads: bool | tuple[str, ...] = False
    #: Keeps the key of the environment that the host has, for later runs.
    remember_environment: Callable[[str], None] = lambda key: None
    #: Advice about an error because of which the application cannot be prepared; empty for none.
    explain: Callable[[Mapping[str, Any]], str] = lambda error: ""
    #: Keeps what the host says about the application's import, for later runs.
    remember_import: Callable[[ImportFacts], None] = lambda facts: None
    #: The same for an error with which a job failed.
    explain_job: Callable[[Mapping[str, Any]], str] = lambda error: ""


def blob_frames(blob: Blob, scope: str) -> Iterator[bytes]:
    """Yield one content in chunks. `scope`: `run` (for this run) or `cache` (kept on the host for later runs)."""
    data = blob.read()
    offset = 0
    while True:
        piece = data[offset : offset + wire.CHUNK]
        yield wire.encode(
            {"t": "blob", "sha256": blob.sha256, "size": len(data), "offset": offset, "scope": scope}, piece
        )
        offset += len(piece)
        if offset >= len(data):
            return


def content_frames(blobs: list[Blob]) -> Iterator[bytes]:
    """Yield many contents. Small ones share frames, and large ones come in chunks."""
    items: list[list[Any]] = []
    pieces: list[bytes] = []
    size = 0
    for blob in blobs:
        if blob.size > wire.CHUNK:
            yield from blob_frames(blob, "cache")
            continue
        data = blob.read()
        items.append([blob.sha256, len(data)])
        pieces.append(data)
        size += len(data)
        if size > wire.CHUNK or len(items) == 2000:
            yield wire.encode({"t": "blobs", "items": items}, b"".join(pieces))
            items, pieces, size = [], [], 0
    if items:
        yield wire.encode({"t": "blobs", "items": items}, b"".join(pieces))
