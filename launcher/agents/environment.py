"""Sends a host what it needs for its environment: the description, when the host has reported its facts, and the files that it lacks.

Rule: resolving and fetching may take minutes, so each has its own thread, which puts frames into the queue of the link that asked. If
that link is gone by then, nothing is sent. If something cannot be had, the host is told, and fails the jobs that wait for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from launcher.errors import LauncherError
from remote_agent.protocol import messages, wire
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts

__all__ = ["EnvironmentSender", "Plan", "Source", "file_frames"]


class Plan(Protocol):
    """The environment that a host installs."""

    @property
    def spec(self) -> EnvironmentSpec:
        """The description that the host gets."""

    def addresses(self, allowed: bool | tuple[str, ...]) -> dict[str, str]:
        """Return sha256 -> address, for the contents that the host may fetch itself; `allowed`: what the user allows there."""

    def fetch(self, sha256: str, *, is_doubtful: bool = False) -> Path:
        """Return a content of the environment, as a file here. A doubtful one is checked, and fetched again if it was altered.

        Raises:
            LauncherError: it cannot be fetched.
        """


class Source(Protocol):
    """Decides what a host installs."""

    def plan(self, facts: HostFacts, named: str | None = None, downloads: bool | tuple[str, ...] = False) -> Plan:
        """Return what a host with these facts installs.

        Args:
            named: its only Python that counts, as the user named it.
            downloads: what the host may fetch itself, so also a Python.

        Raises:
            LauncherError: it can install nothing that fits.
        """

    def stop(self) -> None:
        """The run is over on this host: end what is being done for it. May be called from any thread, and more than once."""


class EnvironmentSender:
    """Sends the environment of one host over one link.

    Args:
        put: queues a frame.
        budget: the bytes that all environments there may have before this one is built; None for no limit.
        python: the only Python there that counts; None for any.
        downloads: whether the host may fetch files itself, or the beginnings of the addresses from which it may.
    """

    def __init__(
        self,
        host: str,
        source: Source,
        put: Callable[[Iterator[bytes] | bytes], None],
        budget: int | None = None,
        python: str | None = None,
        downloads: bool | tuple[str, ...] = False,
    ) -> None:
        self._host = host
        self._source = source
        self._put = put
        self._budget = budget
        self._python = python
        self._downloads = downloads
        self._plan: Plan | None = None
        self._sent: set[str] = set()
        self._is_over = threading.Event()
        self._busy = threading.Lock()

    def describe(self, facts: HostFacts) -> None:
        """Send the description as soon as it is known."""
        self._begin(lambda: self._describe(facts))

    def send(self, wanted: list[tuple[str, int]]) -> None:
        """Send these contents, each from its offset on, as soon as they are fetched."""
        self._begin(lambda: self._send(wanted))

    def close(self) -> None:
        """Send nothing more, because the link is gone."""
        self._is_over.set()

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                with self._busy:
                    work()
            except LauncherError as error:
                self._withhold(str(error))
            except Exception as error:  # after our own defect, the host must not wait for ever  # noqa: BLE001
                self._withhold(f"environment: {type(error).__name__}: {error}")

        threading.Thread(target=run, name=f"environment-{self._host}", daemon=True).start()

    def _withhold(self, message: str) -> None:
        if not self._is_over.is_set():
            self._put(wire.encode({"t": "withheld", "message": message[:100_000], "environment": True}))

    def _describe(self, facts: HostFacts) -> None:
        self._plan = plan = self._source.plan(facts, self._python, self._downloads)
        addresses = plan.addresses(self._downloads) if self._downloads else {}
        if not self._is_over.is_set():
            said: dict[str, Any] = plan.spec.to_json()
            header: messages.Environment = {
                "t": "environment",
                "key": plan.spec.key,
                "budget": self._budget,
                "addresses": addresses,
                "named": not isinstance(self._downloads, bool),
                "fetch_python": bool(self._downloads),
            }
            self._put(wire.encode(header, json.dumps(said).encode()))

    def _send(self, wanted: list[tuple[str, int]]) -> None:
        plan = self._plan
        if plan is None:
            raise LauncherError("environment: the host asks for files before it got the list of them")
        # Contents that the host has in part come first, because they are complete soon.
        for sha256, offset in sorted(wanted, key=lambda one: -one[1]):
            if self._is_over.is_set():
                return
            # What a host asks for again, from the first byte, did not arrive as its name says.
            path = plan.fetch(sha256, is_doubtful=sha256 in self._sent and not offset)
            self._sent.add(sha256)
            self._put(file_frames(sha256, path, offset))


def file_frames(sha256: str, path: Path, offset: int) -> Iterator[bytes]:
    """Yield a content for the host's cache from a file, in chunks from an offset on. The file is read while it is sent.

    Raises:
        LauncherError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(offset)
            while True:
                piece = file.read(wire.CHUNK)
                yield wire.encode(
                    {"t": "blob", "sha256": sha256, "size": size, "offset": offset, "scope": "cache"}, piece
                )
                offset += len(piece)
                if offset >= size or not piece:
                    return
    except OSError as error:
        raise LauncherError(f"environment: {path} cannot be read: {error.strerror or error}") from None
