"""Fetches files of an environment from this host's own internet, where the controller gave their addresses.

Rule: an address decides nothing. What comes is kept only if it has the size and the hash that the controller named, and a part of it is never
used. Each file is reported once: as complete, or with the reason why it must come from the controller. Nothing here waits in the
agent's thread.
"""

import threading
from typing import Callable, Dict, List, NamedTuple, Sequence
from urllib.parse import urlsplit

__all__ = ["STOPPED", "Download", "Downloads"]

#: The reason of a file that was not fetched because nobody needs it any more.
STOPPED = "stopped"
#: Connections at once.
_AT_ONCE = 4


class Download(NamedTuple):
    """A file to fetch. `name` is for messages."""

    sha256: str
    size: int
    url: str
    name: str

    @property
    def server(self) -> str:
        """The name of the server, with its port if the address has one."""
        try:
            return urlsplit(self.url).netloc.rpartition("@")[2] or "?"
        except ValueError:
            return "?"


class Downloads:
    """Fetches these files, the largest first, with several threads.

    Args:
        folder: the folder of the blob store. Nothing else may touch the parts of these files meanwhile.
        is_named: the user has named the addresses, so private networks may be asked.
        tell: called from any thread with the hashes of files: those that are complete, or those that are not fetched, and why.

    Attributes:
        fetched: the bytes that came over the network.
    """

    def __init__(
        self, folder: str, wanted: Sequence[Download], *, is_named: bool, tell: Callable[[List[str], str], None]
    ) -> None:
        self.folder = folder
        self.is_named = is_named
        self._tell = tell
        #: The next one is the last.
        self._queue = sorted(wanted, key=lambda one: one.size)
        self._there: Dict[str, int] = {}
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self.fetched = 0

    def start(self) -> None:
        """Begin."""
        for _ in range(min(_AT_ONCE, len(self._queue))):
            threading.Thread(target=self._run, name="download", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more, and end what is under way. The parts stay."""
        self.stopped.set()

    def there(self, sha256: str) -> int:
        """Return how many bytes of a file are here, as far as is known."""
        return self._there.get(sha256, 0)

    def count(self, sha256: str, there: int, fetched: int = 0) -> None:
        """Count bytes of a file: those that are here, and those of them that have come just now."""
        with self._lock:
            self._there[sha256] = there
            self.fetched += fetched

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    return
                one = self._queue.pop()
            self._tell([one.sha256], self._fetch(one))

    def _fetch(self, one: Download) -> str:
        """Fetch a file. Returns why it cannot be had; empty if it is here."""
        if self.stopped.is_set():
            return STOPPED
        try:
            from remote_agent.agent.environments.fetching.one_file import fetch

            failure = fetch(self, one)
        except ImportError as error:
            why, is_of_server = "the agent's Python has no TLS ({})".format(error), True
        except Exception as error:  # our own defect must not make the run wait for ever  # noqa: BLE001
            why, is_of_server = repr(error), False
        else:
            if failure is None:
                return ""
            why, is_of_server = failure
        if self.stopped.is_set():
            return STOPPED
        if not is_of_server:
            return "{} was not fetched from {}: {}".format(one.name, one.server, why)
        told = "packages cannot be fetched from {}: {}".format(one.server, why)
        self._give_up(one.server, told)
        return told

    def _give_up(self, server: str, why: str) -> None:
        """Report all files of a server that are still to be fetched."""
        with self._lock:
            gone = [one.sha256 for one in self._queue if one.server == server]
            self._queue = [one for one in self._queue if one.server != server]
        if gone:
            self._tell(gone, why)
