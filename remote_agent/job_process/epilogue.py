"""Fires the `on_job_end` hooks that a job which died had not fired.

Rule: exactly the missing end hooks fire, each is announced before it is called, and none fires twice. An outcome that
the job had before it died stays.
"""

import pickle
from typing import Any, Dict, List

from remote_agent.callbacks.composite import Callbacks
from remote_agent.job import JobError, LateValue, RemoteJobError
from remote_agent.job_process import reports
from remote_agent.job_process.channel import FrameSink
from remote_agent.job_process.pickles.result import Result
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.job_process.run import JobRun, Prepared
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS, PLAIN, SAME, Part
from remote_agent.protocol.specs.job import EpilogueSpec
from remote_agent.shared.failure import traceback_text
from remote_agent.shared.job_log import logger

__all__ = ["Epilogue"]


class Epilogue(JobRun):
    """The epilogue of one attempt, in its own process.

    Args:
        state: the payload of the job's `state` message.
    """

    def __init__(
        self, prepared: Prepared, spec: EpilogueSpec, payload: bytes, channel: FrameSink, state: bytes
    ) -> None:
        super().__init__(prepared, spec.fork, payload, channel)
        self._epilogue = spec
        self._state = state
        envelope, job_return = spec.envelope, self.job_return
        self.started_at = job_return.started_at = envelope.started_at or self.started_at
        job_return.ended_at = envelope.ended_at or self.started_at
        job_return.duration = envelope.duration
        if job_return.duration is None:
            job_return.duration = max(0.0, job_return.ended_at - self.started_at)
        self.resources_used = job_return.resources_used = envelope.resources_used
        self.hooks += envelope.hooks
        self._started = spec.indexes("on_job_start")
        self.owed = sorted(set(self._started) - set(spec.indexes("on_job_end")))

    def run(self) -> None:
        """Fire the missing hooks, then send `done`."""
        self.gate.install()
        outcome = self._epilogue.outcome
        if outcome is not None and not self.owed:
            self.channel.send(
                {"t": "done", "envelope": outcome.to_json(), "parts": SAME.to_json(), "spent": 0.0}, sync=True
            )
            return
        problem = ""
        try:
            self.set_up(again=True)
        except Exception as error:  # noqa: BLE001 - perhaps this is what killed the job: a full disk, a broken config
            problem = traceback_text(error)
        result = self._take_up_death() if outcome is None else self._take_up_outcome(outcome)
        if problem:
            logger.error("The epilogue could not be set up as the job was:\n%s", problem)
        self._restore()
        if self.owed:
            self.fire_end_hooks()
            self.normalize_job_return()
        self.done(result)

    def _take_up_death(self) -> Result:
        """Make the job FAILED by what killed it, because there is no outcome."""
        error = self._epilogue.envelope.error or JobError("killed")
        self.job_return.stopped = reports.was_stopped()
        self.fail(error)
        logger.error("Job died: %s", error)
        return Result(NO_PARTS._replace(codec=self.prepared.codec), b"", self.value, "FAILED")

    def _take_up_outcome(self, outcome: Envelope) -> Result:
        """Use the outcome of a job that died in an end hook."""
        self.abort = outcome.abort
        self.job_return.stopped = outcome.stopped
        if outcome.error is not None:
            self.job_return.error = outcome.error
            self.job_return.return_value = RemoteJobError(outcome.error, self.job_return.host)
        self.set_status(outcome.status)
        parts = self._epilogue.parts
        if parts.codec == PLAIN:
            # Only its bytes are here, for the controller. Nothing here decodes them.
            if parts.value is not None:
                self.job_return.return_value = LateValue(_lost_value)
            return Result(parts, b"", self.value, outcome.status)
        if parts.value is not None:
            self.job_return.return_value = self._load(parts.value)
        if parts.cfg is not None:
            self.job_return.cfg = self._load(parts.cfg)
        if parts.hydra_cfg is not None:
            self.job_return.hydra_cfg = self._load(parts.hydra_cfg)
        return Result(parts, b"", self.value, outcome.status)

    def _load(self, part: Part) -> Any:
        with open(self._epilogue.parts.file or self._epilogue.outcome_file, "rb") as file:
            file.seek(part.offset)
            return loads(file.read(part.size))

    def _restore(self) -> None:
        """Restore the callbacks as they were after on_job_start, if that state could be saved. If there is no outcome,
        record again which start hooks fired.
        """
        data = self._state
        path = self._epilogue.state_file
        if path:
            with open(path, "rb") as file:
                data = file.read()
        kept = pickle.loads(data) if data else {"hooks": self._presumed_starts(), "states": []}  # noqa: S301  (our own)
        if not self._epilogue.has_outcome:
            self.hooks[:0] = kept["hooks"]
        entries = list(self.callbacks.entries)
        for state in kept["states"]:
            entry = entries[state["index"]]
            why = state["why"]
            if state["pickle"] is not None:
                try:
                    entries[state["index"]] = entry._replace(instance=loads(state["pickle"]))
                    continue
                except Exception as error:  # noqa: BLE001 - a user's __setstate__ may raise anything
                    why = traceback_text(error)
            logger.error(
                "Callback %s could not be saved after on_job_start; its on_job_end sees it as it was before: %s",
                entry.name,
                why,
            )
        self.callbacks = Callbacks(entries)

    def _presumed_starts(self) -> List[Dict[str, Any]]:
        """Make records of the start hooks that were called. The job reported none, so they succeeded, except the last
        one called if others should have followed.
        """
        having = [index for index, entry in enumerate(self.callbacks) if entry.hook("on_job_start") is not None]
        entered = [index for index in self._started if index in having]
        records = []
        for index in entered:
            entry = self.callbacks.entries[index]
            has_died = index == entered[-1] and len(entered) < len(having)
            error = {"type": "", "message": "the job's process died in it", "traceback": ""} if has_died else None
            records.append(
                {
                    "hook": "on_job_start",
                    "callback": entry.name,
                    "ok": not has_died,
                    "error": error,
                    "on_error": entry.policy,
                }
            )
        return records


def _lost_value() -> Any:
    raise RuntimeError(
        "the process of the job died in an end hook; the controller has what its task had returned, as plain data "
        "(results=safe), so it is not available here"
    )
