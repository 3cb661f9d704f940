"""Sends what jobs leave to the controller: results, output files and what they print. Forgets it when it is acknowledged.

Rule: everything is kept until the controller acknowledges it, and is sent again over every new link until then. A result is sent
as soon as it is on the disk. Output files are sent when the process has ended, because it may write to them until then. A file is
read when its turn comes, so a slow controller costs no memory. The bytes of a long result are sent while it is written to
the disk; the `final` that makes them a result is sent when it is there.
"""

import functools
import json
import os
from typing import Callable, Iterator, Optional, Protocol

from remote_agent.agent.jobs.reports import report_frames
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.link.outbox import Piece
from remote_agent.agent.link.result_frames import as_written, output_frames, result_frames, stream_frames
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.log import Reference
from remote_agent.agent.spool.paths import SpoolPaths, outputs_root
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.messages import Ack, Final, Held
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.held import HeldFile
from remote_agent.shared.disk import remove_tree
from remote_agent.system.background import BackgroundThread

__all__ = ["Delivery"]


class Log(Protocol):
    """What has the bytes of records."""

    def read(self, reference: Reference) -> bytes:
        """Return the payload of a record."""


class KnownAttempts(Protocol):
    """The attempts whose results are sent."""

    @property
    def log(self) -> Log:
        """What has their results."""

    def __iter__(self) -> Iterator[Attempt]: ...

    def __contains__(self, attempt_id: str) -> bool: ...

    def get(self, attempt_id: str) -> Optional[Attempt]:
        """Return an attempt that the controller has not acknowledged."""

    def remove(self, attempt: Attempt) -> None:
        """Forget an attempt whose result the controller has."""


class Delivery:
    """Sends final results, and live output while the controller asks for it."""

    def __init__(
        self,
        paths: SpoolPaths,
        attempts: KnownAttempts,
        zygotes: Zygotes,
        background: BackgroundThread,
        controller: Controller,
    ) -> None:
        self._paths = paths
        self._attempts = attempts
        self._zygotes = zygotes
        self._background = background
        self._controller = controller
        #: Whether files of output that are too long are cut off here.
        self.cuts = True
        #: Whether the next attempt at the job of this one was made here.
        self.again: Callable[[Attempt], bool] = lambda attempt: False
        #: Whether no job runs or waits here.
        self.is_idle: Callable[[], bool] = lambda: False
        #: When the first of the jobs began that run here, in seconds since the epoch; 0.0 if that is not known.
        self.running_since: Callable[[], float] = lambda: 0.0
        #: Whether the next attempt at the job of this one is known here, so that the files for it stay.
        self.is_followed: Callable[[Attempt], bool] = lambda attempt: _next_id(attempt) in attempts

    def resend(self) -> None:
        """Send everything that was not acknowledged again, over a new link."""
        for attempt in self._attempts:
            attempt.stream_sent = {"stdout": 0, "stderr": 0}
            attempt.is_streaming = False
            attempt.is_final_sent = False
            attempt.early_send = None
            attempt.reports.sent = 0
            attempt.held = None
            attempt.held_so_far = {}
            if attempt.final is not None and attempt.is_synced:
                self.send(attempt)
            elif attempt.reports.kept and self._controller.link is not None:
                self._controller.link.outbox.add_source(report_frames(attempt, self._attempts.log.read))

    def send(self, attempt: Attempt) -> None:
        """Send a result. The job's output follows when its process is gone."""
        if self._controller.link is not None and not (
            attempt.early_send is not None and attempt.early_send.is_under_way
        ):
            self._controller.link.outbox.add_source(self._frames(attempt))

    def send_early(self, attempt: Attempt) -> None:
        """Begin to send the bytes of a long result before it is on the disk. The rest follows when it is."""
        if self._controller.link is not None:
            attempt.early_send = _EarlySend()
            self._controller.link.outbox.add_source(self._early_frames(attempt, attempt.early_send))

    def _early_frames(self, attempt: Attempt, early_send: "_EarlySend") -> Iterator[Piece]:
        try:
            if attempt.final is not None:
                yield from result_frames(attempt.id, attempt.final.parts)
                early_send.is_sent = True
        except OSError:
            pass  # the full transfer will meet this error again and report it
        early_send.is_under_way = False
        if attempt.is_synced and attempt.early_send is early_send:
            yield from self._frames(attempt)

    def _frames(self, attempt: Attempt) -> Iterator[Piece]:
        if attempt.final is None or attempt.id not in self._attempts:
            return  # acknowledged while it waited for its turn
        yield from report_frames(attempt, self._attempts.log.read)
        envelope, parts, reference = attempt.final
        payload = b""
        if parts.file:
            try:
                if attempt.early_send is None or not attempt.early_send.is_sent:
                    yield from result_frames(attempt.id, parts)
            except OSError as error:
                envelope, parts = self._unreadable_result(attempt, parts.file, error), NO_PARTS
        elif reference is not None:
            payload = self._attempts.log.read(reference)
        header: Final = {
            "t": "final",
            "attempt": attempt.id,
            "envelope": envelope.to_json(),
            "parts": parts.without_file().to_json(),
            "again": self.again(attempt),
        }
        yield wire.encode(header, payload, passed_on=True)
        if attempt.is_over:
            yield from self._output_frames(attempt)
        else:
            attempt.is_final_sent = True

    def send_reports(self, attempt: Attempt) -> None:
        """Send the reports of a running attempt that were not sent over the present link."""
        if self._controller.link is not None:
            self._controller.link.outbox.add_source(report_frames(attempt, self._attempts.log.read))

    def send_outputs(self, attempt: Attempt) -> None:
        """Send the output of an attempt whose process has ended, if its result was sent already."""
        if attempt.is_final_sent and self._controller.link is not None:
            attempt.is_final_sent = False
            self._controller.link.outbox.add_source(self._output_frames(attempt))

    def _output_frames(self, attempt: Attempt) -> Iterator[Piece]:
        if attempt.id not in self._attempts:
            return  # acknowledged while it waited for its turn
        link = self._controller.link
        is_asked = attempt.came_early and link is not None and link.sync is not None and link.sync.says_held
        if is_asked and attempt.held is None:
            yield wire.encode({"t": "ask_held", "attempt": attempt.id})
            return  # `on_held` goes on
        left = self._zygotes.left
        yield from left.look(is_idle=self.is_idle(), running_since=self.running_since())
        yield from output_frames(
            attempt.id,
            self._paths.streams(attempt),
            attempt.stream_sent,
            self._paths.own_output(attempt),
            attempt.spec.outputs,
            attempt.stream_dropped,
            self._cap(attempt),
            attempt.cut,
            # A job that failed may have done so before it made the directory.
            is_made=attempt.final is not None and attempt.final.envelope.status == "COMPLETED",
            held=attempt.held,
            left=left.told(),
            skips_holes=link is not None and link.takes_holes,
        )

    def on_held(self, header: Held, payload: bytes) -> None:
        """Take what the controller holds of an attempt's files, and send the rest of them."""
        attempt = self._attempts.get(header["attempt"])
        if attempt is None or self._controller.link is None:
            return
        held = [HeldFile.from_json(one) for one in json.loads(payload.decode("utf-8"))]
        attempt.held_so_far.update((one.path, one) for one in held)
        if not header["more"] and attempt.held is None:
            attempt.held = attempt.held_so_far
            self._controller.link.outbox.add_source(self._output_frames(attempt))

    def _unreadable_result(self, attempt: Attempt, path: str, error: OSError) -> Envelope:
        """Make an envelope that says that the file of a result can no longer be read."""
        message = "its result {} can no longer be read: {}".format(path, error.strerror or error)
        self._controller.note("job {}: {}".format(attempt.id, message))
        return failed_envelope(attempt, JobError("host", type(error).__name__, message), None)

    # -- streams -------------------------------------------------------------------------------------------------

    def watch_streams(self, attempt: Attempt) -> None:
        """Keep long output within its limit, and send new output if the controller asks for it."""
        cap = self._cap(attempt)
        link = self._controller.link
        if link is not None and link.live and not attempt.is_streaming and not attempt.is_over:
            attempt.is_streaming = True
            link.outbox.add_source(self._live_frames(attempt, cap))

    def _cap(self, attempt: Attempt) -> Optional[int]:
        """Return how many bytes of a stream are kept; None for all. Cuts off the rest."""
        cap = attempt.spec.max_output_bytes
        if cap is None or not self.cuts:
            return cap
        for stream, path in self._paths.streams(attempt).items():
            _cap_stream(attempt, stream, path, cap)
        return cap

    def _live_frames(self, attempt: Attempt, cap: Optional[int]) -> Iterator[Piece]:
        for stream, path in as_written(self._paths.streams(attempt)):
            try:
                yield from stream_frames(attempt.id, stream, path, attempt.stream_sent, cap)
            except OSError:
                return  # reported when the job has ended and its files are sent
        attempt.is_streaming = False

    # -- forgetting ----------------------------------------------------------------------------------------------

    def on_ack(self, header: Ack, payload: bytes) -> None:
        """Forget results that the controller has on its own disk."""
        for attempt_id in header["attempts"]:
            attempt = self._attempts.get(attempt_id)
            if attempt is None or attempt.final is None:
                continue
            # Its process may still be shutting down. If so, it keeps its slot until it is gone.
            is_followed = self.is_followed(attempt)
            self._attempts.remove(attempt)
            self._background.submit(functools.partial(self._remove_files, attempt, is_followed), None)

    def _remove_files(self, attempt: Attempt, is_followed: bool) -> None:
        for path in self._paths.streams(attempt).values():
            _unlink(path)
        for named in (attempt.state_file, attempt.final.parts.file if attempt.final is not None else ""):
            if named and os.path.dirname(named) == os.path.join(self._paths.spool, "payload"):
                _unlink(named)
        _unlink(self._paths.payload(attempt, ".job"))
        _unlink(self._paths.payload(attempt, ".outcome"))
        _unlink(self._paths.orphan(attempt))
        if is_followed:
            return  # the next attempt has the same payload, and may read what this one has left in its folder
        if attempt.payload_blob:
            _unlink(self._zygotes.blobs.path(attempt.payload_blob))
        for number in [*(one["attempt"] for one in attempt.spec.earlier), attempt.spec.attempt]:
            folder = self._paths.output_of(attempt.spec, number)
            if folder is not None:
                try:
                    remove_tree(folder)
                except OSError:
                    pass  # it is not there, or removed with the spool; if that fails, 'launcher clean' says why
                _remove_empty(os.path.dirname(folder), outputs_root(self._paths.spool, number))


def _next_id(attempt: Attempt) -> str:
    return attempt.spec._replace(attempt=attempt.spec.attempt + 1).attempt_id


class _EarlySend:
    """Whether the bytes of a long result were sent over the present link before it was on the disk."""

    def __init__(self) -> None:
        self.is_under_way = True
        self.is_sent = False


def _cap_stream(attempt: Attempt, stream: str, path: str, cap: int) -> None:
    try:
        size = os.stat(path).st_size
        if size > cap:
            # The job appends, so its next output starts at the cap, and is cut the next time.
            os.truncate(path, cap)
            attempt.stream_dropped[stream] += size - cap
    except FileNotFoundError:
        return


def _remove_empty(folder: str, root: str) -> None:
    """Remove the empty parent folders, below root, of a folder that is gone."""
    try:
        while folder.startswith(root + os.sep):
            os.rmdir(folder)
            folder = os.path.dirname(folder)
    except OSError:
        pass  # the folder is not empty


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # not every attempt has every file
