"""One job: output directory, environment, logging, hooks, application, JobReturn.

Rule: the agent has the outcome of the application before an end hook runs, so that no later crash can change it. Each hook is
announced to the agent before it is called.

The job payload is the cloudpickle of `{"config", "hydra", "overrides", "task_name"}`: for a Hydra app `config` has its
`hydra` node and `hydra` is None; for a plain config `hydra` is the node of `minimal_hydra_node`. A job with its own
task also has `task`. A job that is called with its own arguments also has `call`: the cloudpickle of (args, kwargs).
"""

import os
import pickle
import sys
import time
from typing import Any, Callable, Dict, List, Literal, NamedTuple, Optional

from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.hydra.compat import as_hydra
from remote_agent.job import JobError, JobReturn, RemoteJobError, ResourcesUsed
from remote_agent.job_process import reports
from remote_agent.job_process.channel import FrameSink, private_opener
from remote_agent.job_process.context import JobContext, make_context
from remote_agent.job_process.current import CurrentJob, EarlierAttempt, set_current_job
from remote_agent.job_process.pickles.config_pickle import rewrite_config_pickle
from remote_agent.job_process.pickles.result import Result, make_result, shortened
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.job_process.process import SignalGate, hold_standard_fds
from remote_agent.job_process.seeds import SeedWatch
from remote_agent.job_process.usage import UsageWatch
from remote_agent.protocol import messages, wire
from remote_agent.protocol.constants import REPORTS
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.messages import Imported
from remote_agent.protocol.result_parts import PICKLED, PLAIN, SAME, ResultParts
from remote_agent.protocol.specs.job import ForkSpec
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.failure import decided_error, error_of_exception, exit_code_of, safe_text, type_name
from remote_agent.shared.job_log import logger
from remote_agent.system.host import NO_ROOM, unwritable

__all__ = ["JobRun", "Prepared"]


class ImportedAgain(NamedTuple):
    """The installed modules that the import of the application has loaded, in their order; and the packages of them that it names."""

    modules: List[str]
    imported: List[str]


class Prepared:
    """What the zygote prepared for every job.

    Attributes:
        task: the task function, undecorated.
        callbacks: the composite, with the state from the controller.
        spec: how the application was to be prepared.
        notes: messages for the user.
        imported: what the import of the application did; None if it was not imported here.
        again: what to import for the next run; None if that is not known, or nobody wants it.
        seeds: sets a job's random generators.
        states: callback index -> its pickled state, if it can be pickled.
        broken: why no job can run. Every job then fails with it.
    """

    def __init__(self, task: Callable[[Any], Any], callbacks: Callbacks, spec: ZygoteSpec) -> None:
        self.task = task
        self.callbacks = callbacks
        self.spec = spec
        self.notes: List[str] = []
        self.imported: Optional[Imported] = None
        self.again: Optional[ImportedAgain] = None
        self.seeds = SeedWatch()
        self.states: Dict[int, bytes] = {}
        self.broken: Optional[JobError] = None
        self.controller_python = tuple(spec.controller.python or sys.version_info[:2])

    @property
    def may_send_code(self) -> bool:
        """Whether the controller can load functions and classes that are pickled by value here."""
        return self.controller_python == sys.version_info[:2]

    @property
    def codec(self) -> str:
        """The form in which the controller wants values."""
        return PLAIN if self.spec.values == PLAIN else PICKLED


class JobRun:
    """One attempt, in its own process. `run` sends everything over the channel, up to `done`.

    Args:
        gate: that of the process, if it has one already.
    """

    def __init__(
        self,
        prepared: Prepared,
        spec: ForkSpec,
        payload: bytes,
        channel: FrameSink,
        gate: Optional[SignalGate] = None,
    ) -> None:
        self.prepared = prepared
        self.callbacks = prepared.callbacks
        self.spec = spec
        job = spec.job
        self.payload = payload
        self.channel = channel
        self.gate = gate or SignalGate()
        self.task = prepared.task
        self.hooks: List[Dict[str, Any]] = []
        self.context: Optional[JobContext] = None
        self.abort: Optional[str] = None
        #: Callbacks whose start hook was entered, so that their end hook must fire.
        self.owed: List[int] = []
        self.started_at = time.time()
        self._clock = time.monotonic()
        self._usage = UsageWatch()
        #: What the job has used, when it has ended.
        self.resources_used: Optional[ResourcesUsed] = None
        self.output_dir = os.path.abspath(job.output_dir)
        self.job_return = JobReturn(
            working_dir=job.output_dir,
            job_id=job.job_id,
            num=job.num,
            host=prepared.spec.host,
            attempt=job.attempt,
            started_at=self.started_at,
            output_dir=self.output_dir,
            hooks=self.hooks,
            code=prepared.spec.code,
        )
        told = self.job_return
        earlier = tuple(
            EarlierAttempt(one["attempt"], one.get("host", ""), one.get("kind", ""), one.get("folder") or None)
            for one in job.earlier
        )
        set_current_job(CurrentJob(told.num, told.job_id, told.attempt, told.host, self.output_dir, earlier))
        reports.begin(spec.slot_env.get(REPORTS) or "")

    def run(self) -> None:
        """Run the attempt, from the first frame to `done`."""
        self.gate.install()
        self._announce_end_only()
        self._try_to_succeed()
        self.gate.reclaim()
        hold_standard_fds()
        self._end_clock()
        self.job_return.stopped = reports.was_stopped()
        outcome = self._outcome()
        if self.owed:
            self.fire_end_hooks()
            self.normalize_job_return()
            reports.end()
            self.done(outcome)
        else:
            reports.end()
            self._send_done(SAME, b"")

    # -- before the application ----------------------------------------------------------------------------------

    def _announce_end_only(self) -> None:
        """Announce callbacks that have only `on_job_end`, because that hook must fire in any case."""
        for index, entry in enumerate(self.callbacks):
            if entry.hook("on_job_end") is not None and entry.hook("on_job_start") is None:
                self._entering_start(index, entry)

    def _entering_start(self, index: int, entry: Entry) -> None:
        self.channel.send({"t": "hook", "hook": "on_job_start", "callback": entry.name, "index": index})
        self.owed.append(index)

    def _entering_end(self, index: int, entry: Entry) -> None:
        self.channel.send({"t": "hook", "hook": "on_job_end", "callback": entry.name, "index": index})

    def _try_to_succeed(self) -> None:
        if self.prepared.broken is not None:
            self.fail(self.prepared.broken)
            return
        try:
            context = self.set_up()
        except Exception as error:  # noqa: BLE001 - decoding a config may raise anything
            kind = "host" if isinstance(error, OSError) else "import" if isinstance(error, ImportError) else "config"
            failure = error_of_exception(error, kind)
            is_in_spool = self.output_dir.startswith(os.path.join(self.spec.spool, ""))
            if isinstance(error, OSError) and error.errno in NO_ROOM and is_in_spool:
                failure.message = unwritable(error, self.output_dir)
            self.fail(failure, error)
            return
        self._hooks_and_application(context)

    def set_up(self, *, again: bool = False) -> JobContext:
        """Set up config, folders, logging and files.

        `again`: this is the epilogue, and the job itself did it before.
        """
        output_dir = self.output_dir
        prepared = self.prepared
        cwd = prepared.spec.cwd or os.getcwd()
        self.context = context = make_context(self.payload, loads, output_dir, cwd)
        if context.task is not None:
            self.task = context.task
        folder = output_dir if context.output_subdir is None else os.path.join(output_dir, context.output_subdir)
        _make_folders(output_dir, folder)
        if context.chdir:
            os.chdir(output_dir)
        job_return = self.job_return
        job_return.working_dir = output_dir if context.chdir else os.getcwd()
        job_return.overrides = context.overrides
        job_return.task_name = context.task_name
        job_return.cfg = context.task_cfg
        job_return.hydra_cfg = context.hydra_cfg
        self.job_return = as_hydra(job_return)
        context.configure_logging()
        if context.output_subdir is not None and not again:
            for name, text in context.yaml_files().items():
                _write_text(os.path.join(folder, name), text)
        return context

    def _hooks_and_application(self, context: JobContext) -> None:
        before = {name: os.environ.get(name) for name in context.env_set}
        os.environ.update(context.env_set)
        raised: Optional[BaseException] = None
        try:
            self.gate.call(int)  # raises the signals that came until now
            self._fire_start_hooks(context)
            if self.job_return.error is None:
                args, kwargs = ((context.task_cfg,), {}) if context.call is None else self.gate.call(context.call)
                reports.let_stop(True)
                value, raised = self.gate.call_task(self.task, args, kwargs)
                reports.let_stop(False)
                # The process goes on for a while, so free now what only the task needed.
                del args, kwargs
                if raised is None:
                    self._succeed(value)
        except BaseException as error:  # noqa: BLE001 - whatever a start hook or a signal raised is the outcome
            raised = error
        try:
            if isinstance(raised, SystemExit) and exit_code_of(raised) == 0:
                self._succeed(None)
            elif isinstance(raised, reports.StopRequested):
                # It has not caught it, so what it has reported last is its result.
                self._succeed(raised.values)
            elif raised is not None:
                self.fail(error_of_exception(raised), raised)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            del raised  # its traceback refers to this frame

    def _fire_start_hooks(self, context: JobContext) -> None:
        if not self.callbacks.has("on_job_start"):
            return
        kwargs = {"config": context.config, "task_function": self.task}
        try:
            self.callbacks.fire("on_job_start", kwargs, self.hooks, self._entering_start, call=self.gate.call)
        finally:
            self._send_state()
        if context.controller_folders is not None and context.output_subdir is not None:
            folder = os.path.join(self.output_dir, context.output_subdir)
            rewrite_config_pickle(self.callbacks, folder, self.output_dir, *context.controller_folders)
        self._apply_policies(self.hooks)

    def _send_state(self) -> None:
        """Send the current state of the callbacks, for an epilogue. Nothing is sent if nothing has changed."""
        states = []
        for index, entry in enumerate(self.callbacks):
            if entry.hook("on_job_end") is None or entry.hook("on_job_start") is None:
                continue
            state, why = state_of(entry.instance)
            if state is None or state != self.prepared.states.get(index):
                states.append({"index": index, "pickle": state, "why": why})
        if not states and all(record["ok"] for record in self.hooks):
            return
        data = pickle.dumps({"hooks": self.hooks, "states": states}, 4)
        if len(data) <= wire.MAX_PAYLOAD:
            self.channel.send({"t": "state", "file": None, "error": None}, data)
            return
        path = self._payload_path(".state")
        try:
            with open(path, "wb", opener=private_opener) as file:
                file.write(data)
        except OSError as error:
            self.channel.send({"t": "state", "file": None, "error": "{}: {}".format(path, error.strerror)})
            return
        self.channel.send({"t": "state", "file": path, "error": None})

    def _payload_path(self, suffix: str) -> str:
        folder = os.path.join(self.spec.spool, "payload")
        os.makedirs(folder, 0o700, exist_ok=True)
        return os.path.join(folder, self.spec.job.attempt_id + suffix)

    # -- the outcome ---------------------------------------------------------------------------------------------

    def _succeed(self, value: Any) -> None:
        self.job_return.return_value = value
        self.set_status("COMPLETED")

    def fail(self, error: JobError, exception: Optional[BaseException] = None) -> None:
        """Make the job FAILED, with this error or the agent's reason for ending it.

        Reading `return_value` raises `exception`.
        """
        told = self.channel.end_reason()
        if told:
            error = decided_error(error, told, self.spec.job.timeout)
            exception = None
        self.job_return.error = error
        # Reading raises only an Exception: a SystemExit would end the controller.
        self.job_return.return_value = (
            exception if isinstance(exception, Exception) else RemoteJobError(error, self.job_return.host)
        )
        self.set_status("FAILED")

    @property
    def value(self) -> Any:
        """The value in the JobReturn. Reading its `return_value` would raise the exception of a failed job."""
        return self.job_return._return_value  # noqa: SLF001

    def set_status(self, name: str) -> None:
        """Set the JobReturn's status, in the type that it already has: Hydra's, or ours."""
        self.job_return.status = type(self.job_return.status)[name]

    def _apply_policies(self, records: List[Dict[str, Any]]) -> None:
        for record in records:
            if record["ok"] or record["on_error"] == "warn":
                continue
            if record["on_error"] == "abort" and self.abort is None:
                self.abort = record["callback"]
            if self.job_return.error is None:
                raised = record["error"]
                message = "{}.{}: {}".format(record["callback"], record["hook"], raised["message"])
                self.fail(JobError("hook", raised["type"], message, raised["traceback"]))

    def _end_clock(self) -> None:
        self.job_return.ended_at = time.time()
        self.job_return.duration = time.monotonic() - self._clock

    def _result(self, suffix: str, *, is_kept: bool = True) -> Result:
        """Return the job's result as bytes. A value that cannot be pickled makes the job FAILED."""
        job_return = self.job_return
        edited = self._is_cfg_edited()
        hydra_edited = self.context is not None and job_return.hydra_cfg is not self.context.hydra_cfg
        result, failure = make_result(
            lambda: self._payload_path(suffix),
            self.value,
            is_completed=job_return.status.name == "COMPLETED",
            may_send_code=self.prepared.may_send_code,
            cfg=job_return.cfg if edited else None,
            hydra_cfg=job_return.hydra_cfg if hydra_edited else None,
            is_kept=is_kept,
            codec=self.prepared.codec,
        )
        if failure is not None:
            self.fail(failure)
        return result

    def _is_cfg_edited(self) -> bool:
        context = self.context
        return context is not None and (self.job_return.cfg is not context.task_cfg or context.has_edited_cfg())

    def _outcome(self) -> Result:
        result = self._result(".result")
        # Now, because the result as bytes may take more memory than all before it.
        self.resources_used = self.job_return.resources_used = self._usage.used(self.job_return.duration or 0.0)
        error = self.job_return.error
        if error is not None:
            logger.error("Job failed: %s\n%s", error, error.traceback.rstrip())
        # It is sent together with the name of the first end hook, or with `done`.
        self.channel.hold(
            _frame("outcome", self._envelope(), result.parts, result.payload, self._usage.spent), file=result.parts.file
        )
        return result

    def fire_end_hooks(self) -> None:
        """Fire the missing on_job_end hooks.

        Signals wait, so an end hook gets its time (the agent's `hook_timeout`).
        """
        records: List[Dict[str, Any]] = []
        kwargs = {"config": None if self.context is None else self.context.config, "job_return": self.job_return}
        try:
            self.callbacks.fire(
                "on_job_end", kwargs, records, self._entering_end, self.owed, call=self.gate.call_closed
            )
        except BaseException as error:  # noqa: BLE001 - an interrupt in a hook, which is recorded and changes nothing else
            logger.error("An end hook was interrupted by %s", type_name(error))
        self.hooks += records
        self._apply_policies(records)

    def normalize_job_return(self) -> None:
        """Check the JobReturn after the end hooks. Invalid values are corrected, with a note."""
        job_return = self.job_return
        status = getattr(job_return.status, "name", None)
        if status == "COMPLETED":
            job_return.error = None
            return
        if status != "FAILED":
            logger.error("An end hook set the status to %s; the job is FAILED", safe_text(job_return.status))
            job_return.status = type(as_hydra(JobReturn()).status)["FAILED"]
        if not isinstance(job_return.error, JobError):
            job_return.error = JobError("hook", message="an end hook made the job FAILED")

    def done(self, outcome: Result) -> None:
        """Send `done`, with a new result if the end hooks changed something."""
        is_same = outcome.is_still(self.job_return) and not self._is_cfg_edited()
        if is_same or outcome.has_same_content(self._result("", is_kept=False)):
            self._send_done(SAME, b"")
            return
        result = self._result(".final")
        self._send_done(result.parts, result.payload)

    def _send_done(self, parts: ResultParts, payload: bytes) -> None:
        self.channel.send_all(
            [_frame("done", self._envelope(), parts, payload, self._usage.spent)], sync=True, file=parts.file
        )

    def _envelope(self) -> Envelope:
        job_return = self.job_return
        return Envelope(
            status=job_return.status.name,
            error=job_return.error,
            started_at=self.started_at,
            ended_at=job_return.ended_at,
            duration=job_return.duration,
            task_name=None if job_return.task_name is None else safe_text(job_return.task_name),
            hooks=self.hooks,
            code=self.prepared.spec.code,
            abort=self.abort,
            stopped=bool(job_return.stopped),
            resources_used=self.resources_used,
        )


def _frame(
    name: Literal["outcome", "done"], envelope: Envelope, parts: ResultParts, payload: bytes, spent: float
) -> bytes:
    header: messages.Result = {"t": name, "envelope": envelope.to_json(), "parts": parts.to_json(), "spent": spent}
    try:
        return wire.encode(header, payload)
    except wire.ProtocolError:  # too long, because many hooks have tracebacks
        header["envelope"] = shortened(envelope).to_json()
        return wire.encode(header, payload)


def _make_folders(output_dir: str, folder: str) -> None:
    """Make the output directory and the folder in it, with their parents. They may exist already."""
    try:
        os.mkdir(output_dir)
        if folder != output_dir:
            os.mkdir(folder)
    except OSError:  # not the plain case, which should cost a job no more than this
        os.makedirs(output_dir, exist_ok=True)
        os.makedirs(folder, exist_ok=True)


def state_of(instance: Any) -> Any:
    """Return (pickle, "") that a process forked from the same zygote can load, or (None, why not)."""
    try:
        return pickle.dumps(instance, 4), ""
    except Exception as first:  # noqa: BLE001 - a user's __reduce__ may raise anything
        import cloudpickle

        try:
            return cloudpickle.dumps(instance, protocol=4), ""
        except BaseException as error:  # noqa: BLE001 - as above
            return None, "{}: {}".format(type_name(first), safe_text(error))
    except BaseException as error:  # noqa: BLE001 - as above
        return None, "{}: {}".format(type_name(error), safe_text(error))


def _write_text(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(text.encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
