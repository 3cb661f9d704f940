"""What is sent to a host for its environment: the description, when the host has said what it is, and files that it lacks.

Rule: resolving and fetching may take minutes, so each is done in a thread of its own, which puts frames into the queue of the link that
asked. What was asked over a link that is gone by then is not sent. What cannot be had is told to the host, which fails what waits for it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from launcher.errors import LauncherError
from remote_agent.protocol import wire
from remote_agent.protocol.environment_spec import EnvironmentSpec, HostFacts

__all__ = ["EnvironmentSender", "Plan", "Source", "file_frames"]


class Plan(Protocol):
    """What a host installs."""

    @property
    def spec(self) -> EnvironmentSpec:
        """As it is told."""

    def fetch(self, sha256: str) -> Path:
        """A content of it, as a file here.

        Raises:
            LauncherError: it cannot be had.
        """


class Source(Protocol):
    """Whoever knows what a host installs."""

    def plan(self, facts: HostFacts) -> Plan:
        """What a host that is so installs.

        Raises:
            LauncherError: nothing that it can.
        """


class EnvironmentSender:
    """The environment of one host over one link.

    Args:
        put: queues what is sent.
        budget: bytes that all environments there may have before this one is built; None for no limit.
    """

    def __init__(
        self, host: str, source: Source, put: Callable[[Iterator[bytes] | bytes], None], budget: int | None = None
    ) -> None:
        self._host = host
        self._source = source
        self._put = put
        self._budget = budget
        self._plan: Plan | None = None
        self._is_over = threading.Event()
        self._busy = threading.Lock()

    def describe(self, facts: HostFacts) -> None:
        """Say what is installed, as soon as that is known."""
        self._begin(lambda: self._describe(facts))

    def send(self, wanted: list[tuple[str, int]]) -> None:
        """Send these contents from these offsets on, as they come."""
        self._begin(lambda: self._send(wanted))

    def close(self) -> None:
        """The link is gone."""
        self._is_over.set()

    def _begin(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                with self._busy:
                    work()
            except LauncherError as error:
                self._withhold(str(error))
            except Exception as error:  # a defect of ours must not leave a host waiting  # noqa: BLE001
                self._withhold(f"environment: {type(error).__name__}: {error}")

        threading.Thread(target=run, name=f"environment-{self._host}", daemon=True).start()

    def _withhold(self, message: str) -> None:
        if not self._is_over.is_set():
            self._put(wire.encode({"t": "withheld", "message": message[:100_000], "environment": True}))

    def _describe(self, facts: HostFacts) -> None:
        self._plan = plan = self._source.plan(facts)
        if not self._is_over.is_set():
            said: dict[str, Any] = plan.spec.to_json()
            self._put(
                wire.encode(
                    {"t": "environment", "key": plan.spec.key, "budget": self._budget}, json.dumps(said).encode()
                )
            )

    def _send(self, wanted: list[tuple[str, int]]) -> None:
        plan = self._plan
        if plan is None:
            raise LauncherError("environment: the host asks for files before it was told of any")
        # Those of which a part is there come first: what was begun is soon whole.
        for sha256, offset in sorted(wanted, key=lambda one: -one[1]):
            if self._is_over.is_set():
                return
            self._put(file_frames(sha256, plan.fetch(sha256), offset))


def file_frames(sha256: str, path: Path, offset: int) -> Iterator[bytes]:
    """A content of the host's cache, from a file, in chunks from an offset on. It is read as it is sent.

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
