"""All attempts of a run on this host, and the log that holds them.

Rule: a record is written before its decision takes effect. A claim is on the disk before the attempt starts, and a result before
it is sent. If the disk fails, that is reported, nothing starts, and final results are sent from memory.

A long result is a file, which another thread brings to the disk. If the host goes down in between, there is a record without a
complete file. The next agent checks such files in a thread. Until a file is checked, its record is neither sent nor acted on.
"""

import errno
import functools
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from remote_agent.agent.spool.acknowledged import Acknowledged
from remote_agent.agent.spool.attempt import Attempt, Recorded
from remote_agent.agent.spool.file_checks import FileChecks
from remote_agent.agent.spool.log import Reference, SpoolLog
from remote_agent.agent.spool.records import apply_record, unknown_spec
from remote_agent.agent.spool.syncer import Syncer
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.shared.disk import sync_file
from remote_agent.shared.failure import decided_error
from remote_agent.system.background import BackgroundThread
from remote_agent.system.processes import is_alive

__all__ = ["Attempts"]

#: The disk is full, or the quota is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Attempts:
    """Attempts by id. `record` writes each change into the log.

    Args:
        on_long_result: takes an attempt whose result is a file that is being written to the disk.
        on_durable: takes an attempt whose result is on the disk.
        on_failed: takes the text of an error of the disk, repeatedly while it lasts.
        on_recovered: called when the error is over.
        on_doubtful: takes an attempt that may or may not have started, because its result is incomplete.
    """

    def __init__(
        self,
        path: str,
        boot: str,
        wake: Callable[[], None],
        note: Callable[[str], None],
        on_long_result: Callable[[Attempt], None],
        on_durable: Callable[[Attempt], None],
        on_failed: Callable[[str], None],
        on_recovered: Callable[[], None],
        on_doubtful: Callable[[Attempt], None],
    ) -> None:
        self.log = SpoolLog(path)
        self.error = ""
        self._boot = boot
        self._note = note
        self._on_long_result = on_long_result
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._on_recovered = on_recovered
        self._on_doubtful = on_doubtful
        self._by_id: Dict[str, Attempt] = {}
        self._active: Dict[str, Attempt] = {}
        self._unsynced: Deque[Tuple[int, int, bool, Attempt]] = deque()
        self._requested = (0, 0)
        self._compact_from = 0
        #: How many bytes were dead when a rewrite of the log last failed to make room.
        self._dead_in_vain = 0
        self._is_moved = False
        self._acknowledged = Acknowledged()
        self._syncer = Syncer(self.log, wake)
        self._files = BackgroundThread(wake)
        self._files_under_way = 0
        self._checks = FileChecks(wake)
        #: Whether it is not known yet why an attempt has ended so, and `explain` will tell.
        self.is_unexplained: Callable[[Attempt, Envelope], bool] = lambda attempt, envelope: False
        self._unexplained: List[Tuple[Attempt, bytes]] = []
        #: Whether other machines read the log as it grows. Then it is never rewritten.
        self.is_read_elsewhere = False

    # -- by name -------------------------------------------------------------------------------------------------

    def get(self, attempt_id: str) -> Optional[Attempt]:
        """Return an attempt that the controller has not acknowledged."""
        return self._by_id.get(attempt_id)

    def alive(self, attempt_id: str) -> Optional[Attempt]:
        """Return an attempt that is not acknowledged, or whose process has not ended."""
        return self._by_id.get(attempt_id) or self._active.get(attempt_id)

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._by_id

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._by_id.values()))

    def active(self) -> List[Attempt]:
        """Return the attempts that hold a slot or may have a process."""
        return list(self._active.values())

    @property
    def has_active(self) -> bool:
        """Whether there is one."""
        return bool(self._active)

    def was_acknowledged(self, attempt_id: str) -> bool:
        """Whether it was acknowledged, as far as the log says. Such an attempt never starts again, whoever sends it."""
        return attempt_id in self._acknowledged

    def add(self, attempt: Attempt) -> None:
        """Add a new attempt."""
        self._by_id[attempt.id] = attempt

    def remove(self, attempt: Attempt, *, is_given_back: bool = False) -> None:
        """Remove an attempt.

        The controller has its result (its process may still be ending), or gets it back unstarted and may send it
        again.
        """
        self._by_id.pop(attempt.id, None)
        if not is_given_back:
            self._acknowledged.add(attempt.id)
        gone = self.log.append({"r": "acked", "a": attempt.id, "back": is_given_back})
        self.log.forget([*attempt.references, gone])

    def begun(self, attempt: Attempt) -> None:
        """Record that it has a process, or is about to have one."""
        self._active[attempt.id] = attempt

    def ended(self, attempt: Attempt) -> None:
        """Record that its process is gone."""
        self._active.pop(attempt.id, None)

    # -- the log -------------------------------------------------------------------------------------------------

    def record(self, attempt: Attempt, name: str, header: Dict[str, Any], payload: bytes = b"") -> Reference:
        """Append a record about an attempt. The next `flush` writes it."""
        reference = self.log.append(dict(header, r=name, a=attempt.id), payload)
        attempt.references.append(reference)
        return reference

    def record_report(self, attempt: Attempt, number: int, ring: str, place: int, at: float, report: bytes) -> None:
        """Append a report, which was read from this place of this ring. Of many, only the last ones are kept."""
        header = {"number": number, "ring": ring, "place": place, "at": at}
        self._forget(attempt, attempt.add_report(header, self.record(attempt, "report", header, report)))

    def _forget(self, attempt: Attempt, references: List[Reference]) -> None:
        """Let the log drop records of an attempt that a later one made unnecessary."""
        for one in references:
            attempt.references.remove(one)
        self.log.forget(references)

    def record_claim(self, attempt: Attempt) -> None:
        """Record that this attempt is about to start, and may never be started again.

        `is_claimed` is set when that is on the disk.
        """
        attempt.is_claiming = True
        attempt.boot = self._boot
        reference = self.record(attempt, "claimed", {"boot": self._boot})
        self._unsynced.append((self.log.generation, reference.end, False, attempt))

    def record_final(
        self,
        attempt: Attempt,
        envelope: Envelope,
        parts: ResultParts,
        payload: bytes = b"",
        same_as: Optional[Reference] = None,
    ) -> None:
        """Record the result of an attempt. `on_durable` is called with the attempt when it is on the disk.

        `same_as`: the record of its outcome, if the result has the same payload.
        """
        if self.is_unexplained(attempt, envelope):
            # For everybody here the attempt has its end. What the log says of it waits.
            attempt.final = Recorded(envelope, parts, same_as)
            self._unexplained.append((attempt, payload))
            return
        header = {"envelope": envelope.to_json(), "parts": parts.to_json(), "same": same_as is not None}
        reference = self.record(attempt, "final", header, payload)
        attempt.final = Recorded(envelope, parts, same_as or reference)
        if attempt.state == "queued":
            attempt.state = "final"
        self._unsynced.append((self.log.generation, reference.end, True, attempt))
        if parts.file:
            attempt.awaits_file = True
            self._files_under_way += 1
            self._files.submit(functools.partial(sync_file, parts.file), functools.partial(self._file_synced, attempt))
            self._on_long_result(attempt)

    def awaits_reason(self, attempt: Attempt) -> bool:
        """Whether its end is not in the log yet, because it is not known why it came."""
        return any(one is attempt for one, _ in self._unexplained)

    @property
    def has_unexplained(self) -> bool:
        """Whether there is such an attempt."""
        return bool(self._unexplained)

    def explain(self, kind: str = "", why: str = "") -> List[Attempt]:
        """Say why attempts have ended whose end waits for that; without a kind, nobody knows more than they said. Returns these attempts."""
        waiting, self._unexplained = self._unexplained, []
        explained = self.is_unexplained
        self.is_unexplained = lambda attempt, envelope: False
        for attempt, payload in waiting:
            if attempt.final is None:
                continue
            envelope, parts, same_as = attempt.final
            if kind and envelope.error is not None:
                error = decided_error(envelope.error, kind, None)
                if error.kind != envelope.error.kind and error.message == kind:
                    error.message = why
                envelope = envelope._replace(error=error)
            self.record_final(attempt, envelope, parts, payload, same_as)
        self.is_unexplained = explained
        return [attempt for attempt, _ in waiting]

    @property
    def has_unsynced(self) -> bool:
        """Whether something is being written to the disk, or read from it."""
        return bool(self._unsynced or self._files_under_way or self._checks.under_way)

    @property
    def is_written(self) -> bool:
        """Whether everything recorded so far is in the file, so that it outlives this process."""
        return self.log.written == self.log.end

    def write(self) -> bool:
        """Write what was recorded to the file. Returns False if that failed, which was then reported."""
        try:
            self.log.flush()
        except OSError as error:
            if error.errno in _FULL and self._make_room():
                return True
            self.failed("{}: {}".format(self.log.path, error.strerror or error))
            return False
        return True

    def _make_room(self) -> bool:
        """Rewrite the log without what is not needed any more, because the disk is full.

        Returns False if that does not help.
        """
        live = self._live()
        if self.is_read_elsewhere or not self.log.dead or (live and self.log.dead <= self._dead_in_vain):
            return False
        self._dead_in_vain = self.log.dead
        try:
            moved = self.log.compact(live)
        except OSError:
            return False
        self._dead_in_vain = 0
        for attempt in self._by_id.values():
            attempt.move(moved)
        return True

    def _live(self) -> List[Reference]:
        return sorted(reference for attempt in self._by_id.values() for reference in attempt.references)

    def check_log_is_in_place(self) -> None:
        """Check that the log is where the next agent will look for it."""
        self._is_moved = not self.log.is_in_place
        if self._is_moved:
            self.failed("{} was moved away or removed".format(self.log.path))

    def bring_to_disk(self) -> None:
        """Have what was written synced to the disk, where another machine sees it, though nothing here waits for that."""
        wanted = (self.log.generation, self.log.written)
        if wanted != self._requested and not self.error:
            self._requested = wanted
            self._syncer.request(*wanted)

    def flush(self) -> None:
        """Write what was recorded. If somebody waits for it, have it synced to the disk."""
        if not self.write() or self._is_moved:
            return
        if self.error:
            self.error = ""
            self._note("the spool can be written again")
            self._on_recovered()
        wanted = (self.log.generation, self.log.written)
        if self._unsynced:
            if wanted != self._requested:
                self._requested = wanted
                self._syncer.request(*wanted)
        elif not self.is_read_elsewhere and self.log.wants_compaction and self.log.end > self._compact_from:
            self.compact()

    def failed(self, error: str) -> None:
        """Report that the disk is full or gone. From now on nothing starts, and final results are sent from memory."""
        if not self.error:
            self._note(
                "spool: {}; no more jobs start on this host until the spool can be written (make room there, or set 'workdir' to "
                "another folder for the next run)".format(error)
            )
        self.error = error
        self._requested = (0, 0)
        waiting, self._unsynced = self._unsynced, deque()
        for _, _, is_final, attempt in waiting:
            attempt.is_claiming = False
            if is_final:
                self._durable(is_final, attempt)
        self._on_failed(error)

    def synced(self) -> None:
        """Report what is on the disk now. Called when the loop was woken."""
        self._files.deliver()
        self._checks.deliver()
        for generation, upto, error in self._syncer.completed():
            if error:
                self.failed(error)
                continue
            while self._unsynced:
                its_generation, end, is_final, attempt = self._unsynced[0]
                if its_generation > generation or (its_generation == generation and end > upto):
                    break
                self._unsynced.popleft()
                self._durable(is_final, attempt)

    def _durable(self, is_final: bool, attempt: Attempt) -> None:
        if not is_final:
            attempt.is_claiming, attempt.is_claimed = False, True
        elif attempt.final is not None:
            attempt.is_logged = True
            self._announce_if_synced(attempt)

    def _file_synced(self, attempt: Attempt, error: Optional[BaseException]) -> None:
        self._files_under_way -= 1
        attempt.awaits_file = False
        if error is not None:
            self.failed(str(error))
        self._announce_if_synced(attempt)

    def _announce_if_synced(self, attempt: Attempt) -> None:
        if attempt.is_logged and not attempt.awaits_file and not attempt.is_synced:
            attempt.is_synced = True
            self._on_durable(attempt)

    def compact(self, *, rename: bool = False) -> None:
        """Remove from the log what is not needed any more. `rename`: give it another id."""
        try:
            moved = self.log.compact(self._live(), rename=rename)
        except OSError as error:
            # The log is long, but not broken. Try again when it has doubled.
            self._compact_from = 2 * self.log.end
            self._note("spool: {} cannot be rewritten: {}".format(self.log.path, error.strerror or error))
            return
        for attempt in self._by_id.values():
            attempt.move(moved)

    # -- taking up -----------------------------------------------------------------------------------------------

    def replay(self) -> Tuple[List[Attempt], List[Attempt]]:
        """Read what an earlier agent of this run left.

        Returns:
            The attempts that wait for a slot, and those that may or may not have started.
        """
        replay = self.log.replay(self._on_record)
        if replay.torn:
            self._note("spool log: {}; the rest of the log was moved aside".format(replay.torn))
        for start, end in replay.gaps:
            self._note("spool log: bytes {} to {} are damaged; what they recorded is lost".format(start, end))
        last_gap = replay.gaps[-1][0] if replay.gaps else -1
        waiting, doubtful = [], []
        for attempt in self._by_id.values():
            if attempt.boot and attempt.boot != self._boot:
                self._verify_files(attempt)
            if attempt.final is not None:
                attempt.state = "final"
                attempt.is_synced = not attempt.is_doubted
                if (
                    attempt.pid is not None
                    and attempt.boot == self._boot
                    and is_alive(attempt.pid, attempt.pid_started)
                ):
                    # It is still shutting down, so its output is not complete.
                    attempt.state = "ending"
                    attempt.is_polled = True
                    self.begun(attempt)
            elif attempt.payload is None:
                # The record of its acceptance is damaged.
                doubtful.append(attempt)
            elif attempt.state != "queued":
                attempt.is_polled = True
                attempt.has_exited = attempt.boot != self._boot
                self.begun(attempt)
            elif (attempt.is_claimed and attempt.boot != self._boot) or attempt.payload.offset < last_gap:
                # It was about to start when the machine went down, or the record of its start is damaged.
                doubtful.append(attempt)
            else:
                waiting.append(attempt)
        if replay.gaps:
            # The new id tells the controller that this spool has lost some of what it knew.
            self.compact(rename=True)
        return waiting, doubtful

    def _verify_files(self, attempt: Attempt) -> None:
        """Read the files that may not have reached the disk before the host went down."""
        known = [attempt.final, attempt.outcome] if attempt.payload is not None else [attempt.final]
        files = [one.parts for one in known if one is not None and one.parts.file]
        if not files:
            return
        attempt.is_doubted = True
        self._checks.check(files, functools.partial(self._on_verified, attempt, attempt.state))

    def _on_verified(
        self, attempt: Attempt, state: str, whole: List[ResultParts], error: Optional[BaseException]
    ) -> None:
        """Decide about a doubtful attempt after its file was read.

        A complete result counts, an incomplete one does not exist.
        """
        attempt.is_doubted = False
        if self._by_id.get(attempt.id) is not attempt:
            return  # the controller has acknowledged it in the meantime
        was_final = attempt.final is not None
        for name in ("final", "outcome"):
            known: Optional[Recorded] = getattr(attempt, name)
            if known is not None and known.parts.file and known.parts not in whole:
                setattr(attempt, name, None)
                why = " ({!r})".format(error) if error is not None else ""
                self._note(
                    "job {}: its {} had not reached the disk when the host went down{}".format(attempt.id, name, why)
                )
        if attempt.final is not None:
            attempt.is_synced = True
            self._on_durable(attempt)
        elif was_final:
            # By now its slot belongs to another attempt.
            attempt.slot = None
            if attempt.payload is None or state == "queued":
                self._on_doubtful(attempt)
                return
            attempt.state = state
            attempt.is_polled = attempt.has_exited = True
            self.begun(attempt)

    def _on_record(self, header: Dict[str, Any], reference: Reference) -> None:
        name = header["r"]
        if name == "acked":
            if not header.get("back"):
                self._acknowledged.add(header["a"])
            gone = self._by_id.pop(header["a"], None)
            self.log.forget([*(gone.references if gone else []), reference])
            return
        attempt = self._by_id.get(header["a"])
        if attempt is None and header["a"] in self._acknowledged:
            self.log.forget([reference])
            return
        if attempt is None:
            attempt = self._by_id[header["a"]] = Attempt(unknown_spec(header["a"]))
        attempt.references.append(reference)
        try:
            self._forget(attempt, apply_record(attempt, name, header, reference))
        except ValueError as error:
            # An earlier version accepted what this one refuses. Treat the record like a damaged one.
            self._note("spool log: a record of job {} cannot be read: {}".format(header["a"], error))

    def stop(self) -> None:
        """End the threads."""
        self._checks.stop()
        self._syncer.stop()
        self._files.stop()

    def close(self) -> None:
        """Write what is left, and close the log."""
        try:
            self.log.close()
        except OSError:
            # What could not be written was either delivered from memory, or counts as if it had not happened.
            return
