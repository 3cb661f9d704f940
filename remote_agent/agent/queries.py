"""Answers to queries: the states of attempts, and what they have printed so far.

Rule: a query changes nothing. Its sender does not become the controller, does not replace one, and keeps no lease alive.

    look    {"attempt": id or null, "stdout": offset, "stderr": offset}
    looked  for an id: {"state"}, after frames with the output from these offsets on; for null: every attempt, as JSON
"""

import json
import os
from typing import Any, Dict, Iterator, Mapping

from remote_agent.agent.link.link import Link
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.protocol.messages import Look, Looked, Output

__all__ = ["Queries", "output_frames", "state_frames", "summary_of"]

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
            for frame in state_frames({attempt.id: summary_of(attempt) for attempt in self._attempts}):
                link.outbox.put(frame)
            return
        attempt = self._attempts.alive(attempt_id)
        streams = {} if attempt is None else self._paths.streams(attempt)
        for frame in output_frames(header, streams, "unknown" if attempt is None else attempt.short_state()):
            link.outbox.put(frame)


def state_frames(states: Dict[str, Dict[str, Any]]) -> Iterator[bytes]:
    """The answer about all attempts, as `summary_of` tells of each."""
    items = list(states.items())
    while True:
        part, items = items[:_PART], items[_PART:]
        header: Looked = {"t": "looked", "attempt": None, "state": "", "more": bool(items)}
        yield wire.encode(header, json.dumps(dict(part)).encode("utf-8"))
        if not items:
            return


def output_frames(header: Look, streams: Mapping[str, str], state: str) -> Iterator[bytes]:
    """The answer about one attempt. `streams`: the paths of its output, by stream; `state`: see `Attempt.short_state`."""
    attempt_id = header["attempt"]
    assert attempt_id is not None
    offsets = {"stdout": header["stdout"], "stderr": header["stderr"]}
    for stream, path in streams.items():
        data = _read(path, offsets[stream])
        if data:
            output: Output = {"t": "output", "attempt": attempt_id, "stream": stream, "offset": offsets[stream]}
            yield wire.encode(output, data)
    looked: Looked = {"t": "looked", "attempt": attempt_id, "state": state, "more": False}
    yield wire.encode(looked)


def _read(path: str, offset: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, wire.CHUNK, max(offset, 0))
    finally:
        os.close(fd)


def summary_of(attempt: Attempt) -> Dict[str, Any]:
    """What the answer about all attempts says of one."""
    envelope = attempt.final.envelope if attempt.final is not None else None
    error = envelope.error if envelope is not None else None
    return {
        "state": attempt.short_state(),
        "status": envelope.status if envelope is not None else None,
        "kind": error.kind if error is not None else None,
        "started_at": attempt.started_at,
        "cancel": attempt.cancel,
    }
