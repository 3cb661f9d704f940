"""Answers to queries: the states of attempts, and what they have printed so far.

Rule: a query changes nothing. Its sender does not become the controller, does not replace one, and keeps no lease alive.

    look    {"attempt": id or null, "stdout": offset, "stderr": offset}
    looked  for an id: {"state"}, after frames with the output from these offsets on; for null: every attempt, as JSON
"""

import json
import os
from typing import Any, Dict

from remote_agent.agent.link.link import Link
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Look, Looked, Output

__all__ = ["Queries"]

#: How many attempts one answer has.
_PART = 4000


class Queries:
    """Answers queries about the attempts of this agent."""

    def __init__(self, paths: SpoolPaths, attempts: Attempts) -> None:
        self._paths = paths
        self._attempts = attempts

    def answer(self, link: Link, header: Look) -> None:
        """Answer one `look` message."""
        attempt_id = header["attempt"]
        if attempt_id is None:
            self._send_states(link)
            return
        attempt = self._attempts.alive(attempt_id)
        offsets = {"stdout": header["stdout"], "stderr": header["stderr"]}
        if attempt is not None:
            for stream, path in self._paths.streams(attempt).items():
                self._send_output(link, attempt_id, stream, path, offsets[stream])
        state = "unknown" if attempt is None else attempt.short_state()
        link.outbox.put(wire.encode({"t": "looked", "attempt": attempt_id, "state": state, "more": False}))

    def _send_states(self, link: Link) -> None:
        items = [(attempt.id, _summary_of(attempt)) for attempt in self._attempts]
        while True:
            part, items = items[:_PART], items[_PART:]
            header: Looked = {"t": "looked", "attempt": None, "state": "", "more": bool(items)}
            link.outbox.put(wire.encode(header, json.dumps(dict(part)).encode("utf-8")))
            if not items:
                return

    @staticmethod
    def _send_output(link: Link, attempt_id: str, stream: str, path: str, offset: int) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            data = os.pread(fd, wire.CHUNK, max(offset, 0))
        finally:
            os.close(fd)
        if data:
            header: Output = {"t": "output", "attempt": attempt_id, "stream": stream, "offset": offset}
            link.outbox.put(wire.encode(header, data))


def _summary_of(attempt: Attempt) -> Dict[str, Any]:
    envelope = attempt.final.envelope if attempt.final is not None else None
    error = envelope.error if envelope is not None else None
    return {
        "state": attempt.short_state(),
        "status": envelope.status if envelope is not None else None,
        "kind": error.kind if error is not None else None,
        "started_at": attempt.started_at,
        "cancel": attempt.cancel,
    }
