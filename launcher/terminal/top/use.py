"""What `launcher top` knows: what each host says of what runs there, and what the journals here say of runs that have not ended.

Rule: each host is asked in a thread of its own, so that one that does not answer keeps nobody waiting. Journals are only read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from launcher.agents.queries.gpus import GpuList
from launcher.agents.queries.host_use import HostUse
from launcher.agents.queries.query import AgentQuery
from launcher.display.tally import HostTally, Tally
from launcher.errors import LauncherError
from launcher.hosts.host_spec import HostSpec
from launcher.runs import index
from launcher.runs.index import Entry
from launcher.runs.journal import JournalReader
from launcher.runs.status import RunStatus, read_status

__all__ = ["OPEN", "AskedHost", "RunHere", "RunsHere"]

#: States of runs that have not ended.
OPEN = ("running", "detached", "died")
#: How many times as long a host is left alone that has not answered.
_PAUSE = 5


@dataclass
class AskedHost:
    """A host, and what it said last. `error` is empty if it has answered."""

    spec: HostSpec
    label: str
    use: HostUse | None = None
    gpus: GpuList | None = None
    error: str = ""
    answered_at: float | None = None
    #: Set at each answer, and when the host is found not to answer.
    has_answered: threading.Event = field(default_factory=threading.Event)

    def ask_always(self, every: float, is_over: threading.Event, changed: Callable[[], None]) -> None:
        """Ask again and again, in this thread, over one connection as long as it lasts."""
        while not is_over.is_set():
            try:
                with AgentQuery(self.spec, "clean") as talk:
                    while True:
                        self._ask(talk)
                        changed()
                        if is_over.wait(every):
                            return
            except LauncherError as error:
                self.error = str(error)
            self.has_answered.set()
            changed()
            is_over.wait(every * _PAUSE)

    def _ask(self, talk: AgentQuery) -> None:
        use, gpus = talk.use(), talk.gpus(self.spec.gpus)
        self.use, self.gpus, self.error, self.answered_at = use, gpus, "", time.time()
        self.has_answered.set()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "host": self.spec.name,
            "label": self.label,
            **(self.use.to_json() if self.use is not None else {"runs": []}),
            "gpus": self.gpus.to_json()["gpus"] if self.gpus is not None else [],
            "error": self.error or (None if self.use is not None else "it has not answered yet"),
        }


@dataclass
class RunHere:
    """A run whose journal is here, and its counts."""

    status: RunStatus
    tally: Tally

    def host_of(self, spool: str) -> HostTally | None:
        """Return the host whose spool has this name (`remote_agent.system.host.slug`): it ends in a hash of the host's name."""
        for name, host in self.tally.hosts.items():
            if spool.rpartition("-")[2] == hashlib.sha256(name.encode()).hexdigest()[:8]:
                return host
        return None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        hosts = {
            host.name: {
                "state": host.state,
                "slots": None if host.is_cluster else host.slots,
                "running": host.running,
                "queued": host.queued,
                "queue_reason": host.queue_reason or None,
            }
            for host in self.tally.hosts.values()
        }
        return {**self.status.to_json(), "hosts": hosts, "waiting_here": self.tally.waiting}


class RunsHere:
    """The runs that have not ended, by their journals. What was read once is not read again. One thread uses it.

    Attributes:
        problems: run -> why its journal cannot be read.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[JournalReader, Tally, int]] = {}
        self.problems: dict[str, str] = {}

    def read(self) -> dict[str, RunHere]:
        """Return them by their ids."""
        found: dict[str, RunHere] = {}
        self.problems = {}
        for entry in index.entries():
            if entry.is_there:
                self._read(entry, found)
        for run in [run for run in self._known if run not in found]:
            self._known.pop(run)[0].close()
        return found

    def _read(self, entry: Entry, found: dict[str, RunHere]) -> None:
        try:
            status = read_status(entry)
            if status.state not in OPEN:
                return
            if entry.run not in self._known:
                self._known[entry.run] = (JournalReader(entry.journal), Tally(), 0)
            reader, tally, after = self._known[entry.run]
            for seq, event in reader.events(after):
                tally(event)
                after = seq
        except (LauncherError, sqlite3.Error) as error:
            self.problems[entry.run] = str(error)
            return
        self._known[entry.run] = (reader, tally, after)
        found[entry.run] = RunHere(status, tally)

    def close(self) -> None:
        """Close the journals."""
        for reader, _, _ in self._known.values():
            reader.close()
        self._known.clear()
