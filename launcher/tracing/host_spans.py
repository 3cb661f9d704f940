"""The spans of hosts: setting each up, and the times for which its link was lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from launcher import events
from launcher.runs.journal_reader import JournalReader
from launcher.tracing.span import Moment, Span

__all__ = ["HostSpans"]

_KINDS = ("way", "code_sent", "environment_ready", "host_ready", "host_unusable", "host_unknown", "host_lost")


class HostSpans:
    """The spans of a run's hosts.

    Args:
        name: gives a span's id.
        root: the id of the run's span.
        begin: when the controller began to connect.
        end: the end of the run.

    Attributes:
        spans: those that were made.
        pythons: the version of Python that each host has said.
    """

    def __init__(self, name: Callable[[str], str], root: str, begin: float, end: float) -> None:
        self.spans: list[Span] = []
        self.pythons: dict[str, str] = {}
        self._name, self._root, self._begin, self._end = name, root, begin, end
        self._ways: dict[str, str] = {}
        self._moments: defaultdict[str, list[Moment]] = defaultdict(list)
        self._set_up: set[str] = set()
        self._lost: dict[str, tuple[int, events.HostUnknown]] = {}

    def read(self, reader: JournalReader) -> None:
        """Make the spans of all hosts."""
        for seq, event in reader.events_of(*_KINDS):
            self._apply(seq, event)
        for host in list(self._lost):
            self._found_again(host, self._end)

    def _apply(self, seq: int, event: events.Event) -> None:
        match event:
            case events.WayChosen():
                self._ways[event.host] = event.way
            case events.CodeSent():
                about = {"remote_launcher.code.files": event.files, "remote_launcher.code.sent_bytes": event.sent_bytes}
                self._moments[event.host].append(Moment(event.at, "code sent", about))
            case events.EnvironmentReady():
                told = {"remote_launcher.environment": event.key, "remote_launcher.environment.is_new": event.is_new}
                self._moments[event.host].append(Moment(event.at, "environment ready", told))
            case events.HostReady():
                self.pythons[event.host] = event.python
                self._found_again(event.host, event.at)
                if event.host not in self._set_up:
                    self._add_set_up(seq, event, {"remote_launcher.slots": event.slots})
            case events.HostUnusable():
                self._add_set_up(seq, event, {"error.type": event.phase}, f"{event.phase}: {event.why}")
            case events.HostUnknown():
                self._lost.setdefault(event.host, (seq, event))
            case events.HostLost():
                self._found_again(event.host, event.at)
            case _:
                pass

    def _add_set_up(
        self, seq: int, event: events.HostReady | events.HostUnusable, more: dict[str, Any], problem: str = ""
    ) -> None:
        host = event.host
        about = {"server.address": host, **more}
        if host in self._ways:
            about["remote_launcher.ssh.way"] = self._ways[host]
        self._set_up.add(host)
        begin = min(self._begin, event.at)
        name, moments = self._name(f"host/{seq}"), list(self._moments[host])
        made = Span(name, self._root, f"set up {host}", begin, event.at, about, "", problem, host, moments)
        self.spans.append(made)

    def _found_again(self, host: str, at: float) -> None:
        """Make the span of a lost link, if it was lost: it ends when the host is back, or given up."""
        if host not in self._lost:
            return
        seq, event = self._lost.pop(host)
        about = {"server.address": host, "remote_launcher.jobs": len(event.jobs)}
        name, over = self._name(f"lost/{seq}"), max(event.at, at)
        self.spans.append(
            Span(name, self._root, f"link lost {host}", event.at, over, about, problem=event.why or "lost", peer=host)
        )
