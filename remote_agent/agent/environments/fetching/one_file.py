"""Fetches one file of an environment, by its address.

Rule: after a connection that broke it goes on where it stopped. It gives up early rather than late: the controller has every file, too.
This module is imported by the thread that fetches (see `https`).
"""

import time
from typing import TYPE_CHECKING, Optional, Tuple

from remote_agent.agent.environments.fetching.https import BrokenError, Opener, RefusedError
from remote_agent.agent.spool.code.blobs import AlteredError, BlobStore
from remote_agent.system.private_files import SpoolError

if TYPE_CHECKING:
    from remote_agent.agent.environments.fetching.downloads import Download, Downloads

__all__ = ["fetch"]

_PIECE = 1 << 18
#: Seconds for which a server may be silent, also before its first byte.
_PATIENCE = 20.0
#: So many bytes must come in so many seconds; else it counts as a connection that broke.
_SLOWEST = 64 << 10
_SLOWEST_WITHIN = 60.0
#: How often in a row a connection may break that has not brought that much. Seconds between two tries.
_TRIES = 3
_PAUSE = 1.0


def fetch(downloads: "Downloads", one: "Download") -> Optional[Tuple[str, bool]]:
    """Fetch a file into the blob store. Returns None, or why it cannot be had and whether that holds for its server."""
    store = BlobStore(downloads.folder)
    try:
        opener = Opener(one.url, is_named=downloads.is_named, patience=_PATIENCE)
        tries, was_altered = 0, False
        while True:
            before = store.resume(one.sha256)
            downloads.count(one.sha256, before)
            try:
                _go_on(downloads, store, one, opener, before)
            except BrokenError as error:
                tries = 1 if downloads.there(one.sha256) - before >= _SLOWEST else tries + 1
                if not opener.has_answered or tries >= _TRIES:
                    return str(error), not opener.has_answered
                downloads.stopped.wait(_PAUSE)
            except AlteredError:
                # It may have been the part from an earlier time that was altered.
                if was_altered or not before:
                    return "its content does not match the lock, and was thrown away", False
                was_altered = True
            else:
                return None
    except RefusedError as error:
        return str(error), error.is_of_server
    except (SpoolError, OSError) as error:
        return "it cannot be written: {}".format(error), False
    finally:
        store.leave(one.sha256)


def _go_on(downloads: "Downloads", store: BlobStore, one: "Download", opener: Opener, there: int) -> None:
    """Fetch what is missing of a file, over one connection.

    Raises:
        BrokenError: the connection broke.
        RefusedError: this server does not give this file, or nobody needs it any more.
        AlteredError, SpoolError, OSError: it is not what it should be, or the disk.
    """
    if there == one.size:
        # The agent that fetched it died before it had its name.
        store.put_chunk(one.sha256, one.size, there, b"")
        return
    answer = opener.open(there if there < one.size else 0, one.size)
    at = answer.begin
    count, began = 0, time.monotonic()
    try:
        while not downloads.stopped.is_set():
            piece = answer.read(_PIECE)
            if at + len(piece) > one.size:
                raise RefusedError("it sends more than the {} bytes that the lock says".format(one.size))
            is_whole = store.put_chunk(one.sha256, one.size, at, piece)
            at += len(piece)
            downloads.count(one.sha256, at, len(piece))
            if is_whole:
                return
            if not piece:
                raise BrokenError("the connection ended early")
            count += len(piece)
            now = time.monotonic()
            if now - began > _SLOWEST_WITHIN:
                if count < _SLOWEST:
                    raise BrokenError("only {} bytes came within {:.0f} s".format(count, _SLOWEST_WITHIN))
                count, began = 0, now
    finally:
        answer.close()
    raise RefusedError("it is not needed any more")
