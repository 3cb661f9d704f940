"""What the process of a job says: hooks, the state of callbacks, its outcome and result, what its end waits for.

Rule: it is checked before it is used, and recorded. It can do no harm to other jobs. The kind of an error is the recorded one: that of a cancel or
timeout, if there was one.
"""

import time
from typing import Callable, List

from remote_agent.agent.jobs.reports import Reports
from remote_agent.agent.jobs.shutdown import MAX_RUNNING, Shutdown
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.resources.usage import with_usage
from remote_agent.agent.spool.attempt import Attempt, Recorded
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.messages import Result
from remote_agent.protocol.result_parts import NO_PARTS, ResultParts
from remote_agent.shared.failure import decided_error

__all__ = ["JobMessages"]

#: How many characters of each name of something that was still running are reported.
_MAX_NAME = 200
_KEPT = wire.encode({"t": "kept"})


class JobMessages:
    """Takes what jobs say. `blob_path`: where the content of a hash is."""

    def __init__(
        self,
        attempts: Attempts,
        controller: Controller,
        reports: Reports,
        shutdown: Shutdown,
        blob_path: Callable[[str], str],
    ) -> None:
        self._attempts = attempts
        self._controller = controller
        self._reports = reports
        self._shutdown = shutdown
        self._blob_path = blob_path
        self._unconfirmed: List[Attempt] = []

    def read(self, attempt: Attempt, decoder: wire.Decoder, data: bytes) -> bool:
        """Record what a job sends. Returns False if it cannot be read; nothing more is read from that job then."""
        try:
            try:
                frames = decoder.feed(data)
            except wire.ProtocolError as error:
                # The frames before the unreadable one are good.
                for frame in error.frames:
                    self._job_frame(attempt, frame)
                raise
            for frame in frames:
                self._job_frame(attempt, frame)
        except (wire.ProtocolError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self._controller.note(
                "job {}: its process sent a message that cannot be read: {}".format(attempt.id, str(error)[:500])
            )
            return False
        return True

    def _job_frame(self, attempt: Attempt, frame: wire.Frame) -> None:
        header = frame.header
        record = self._attempts.record
        if header["t"] == "hook":
            entry = (header["hook"], header["index"])
            if entry not in attempt.entered:
                attempt.entered.append(entry)
                record(attempt, "hook", {"hook": header["hook"], "index": header["index"]})
        elif header["t"] == "state":
            if attempt.state_at is None:
                attempt.state_file = header["file"]
                reference = record(attempt, "state", {"file": attempt.state_file}, frame.payload)
                attempt.state_at = reference if not header["error"] else None
        elif header["t"] == "outcome":
            if attempt.outcome is None and attempt.final is None:
                self._reports.read(attempt, time.monotonic(), is_last=True)
                self._outcome(attempt, header, frame.payload)
        elif header["t"] == "done":
            if attempt.final is None:
                self._reports.read(attempt, time.monotonic(), is_last=True)
                self._done(attempt, header, frame.payload)
            self._unconfirmed.append(attempt)
        elif header["t"] == "ending":
            attempt.running = [str(one)[:_MAX_NAME] for one in header["running"][:MAX_RUNNING]]
            if attempt.asked_at is not None and attempt.cut is None:
                self._shutdown.kill(attempt)
        elif header["t"] == "idle":
            attempt.is_idle = True
        else:
            raise wire.ProtocolError("unknown", "message {!r} is not for an agent".format(header["t"]))

    def _outcome(self, attempt: Attempt, header: Result, payload: bytes) -> None:
        envelope = self._envelope(attempt, header)
        parts = ResultParts.from_json(header["parts"])
        record = {"envelope": envelope.to_json(), "parts": parts.to_json()}
        attempt.outcome = Recorded(envelope, parts, self._attempts.record(attempt, "outcome", record, payload))
        if attempt.worker is not None:
            # What its process had used before the next job.
            attempt.worker.spent = float(header["spent"])
        # From now on only the end hooks can hang.
        attempt.deadline = None
        attempt.kill_at = time.monotonic() + attempt.spec.hook_timeout

    def _envelope(self, attempt: Attempt, header: Result) -> Envelope:
        """Read how the job ended, and add what only this agent knows."""
        envelope = _with_decided_error(attempt, Envelope.from_json(header["envelope"]))
        if attempt.outcome is not None:
            # The job has said what it used when it had its outcome.
            return envelope._replace(resources_used=attempt.outcome.envelope.resources_used)
        return with_usage(attempt, envelope, self._blob_path)

    def _done(self, attempt: Attempt, header: Result, payload: bytes) -> None:
        envelope = self._envelope(attempt, header)
        parts = ResultParts.from_json(header["parts"])
        if parts.same and attempt.outcome is not None:
            self._attempts.record_final(attempt, envelope, attempt.outcome.parts, same_as=attempt.outcome.reference)
        else:
            self._attempts.record_final(attempt, envelope, NO_PARTS if parts.same else parts, payload)
        if not attempt.has_exited:
            self._shutdown.begin(attempt)

    def confirm_kept(self) -> None:
        """Tell jobs that their results are in the log. Until then each job keeps its own result, in case the agent dies.

        If the log cannot be written, the controller gets the results from memory, and the jobs go on all the same.
        """
        is_final_sent = bool(self._attempts.error) and self._controller.link is not None
        if not self._unconfirmed or not (self._attempts.is_written or is_final_sent):
            return
        for attempt in self._unconfirmed:
            if attempt.sock is not None:
                try:
                    attempt.sock.send(_KEPT)
                except OSError:
                    continue  # the job is gone already
        self._unconfirmed = []


def _with_decided_error(attempt: Attempt, envelope: Envelope) -> Envelope:
    """Return the envelope, with the error kind of a recorded cancel or timeout."""
    if attempt.cancel is None or envelope.error is None:
        return envelope
    return envelope._replace(error=decided_error(envelope.error, attempt.cancel, attempt.spec.timeout))
