"""A worker (`isolation: reuse`): the process of a job takes the next job when nothing of the last one is left in it.

Rule: a job finds everything as in a fresh process, except modules, their globals, and seeds. If that cannot be kept, the process ends as
a job's process does, and the next job gets a fork. A job is over only when the agent has its result in the log.
"""

import contextvars
import gc
import os
from typing import List, NoReturn, Optional, Tuple

from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.job_process import shutdown
from remote_agent.job_process.channel import JobChannel
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.job_process.process import SignalGate, begin_job, hold_gpus, keep_threads_to
from remote_agent.job_process.run import JobRun, Prepared
from remote_agent.protocol.specs.job import ForkSpec
from remote_agent.zygote.reuse.leftovers import Leftovers
from remote_agent.zygote.reuse.process_state import ProcessState

__all__ = ["Worker"]


class Worker:
    """Does job after job in this process, which is that of the first job already.

    Args:
        prepared: what all jobs share.
        channel: to the agent.
        log: where what is printed between two jobs goes.
        leases: descriptors by which the first job has its GPUs. Between two jobs this process has none.
    """

    def __init__(self, prepared: Prepared, channel: JobChannel, log: int, leases: List[int]) -> None:
        self._prepared = prepared
        self._channel = channel
        self._log = log
        self._gate = SignalGate()
        self._gate.install()
        # All objects so far are not the job's.
        gc.freeze()
        self._state = ProcessState()
        self._leases = leases
        self._leftovers = Leftovers(leases)

    def serve(self, spec: ForkSpec, payload: bytes) -> NoReturn:
        """Do this job and those that follow it. Ends the process."""
        job: Optional[Tuple[ForkSpec, bytes]] = (spec, payload)
        seconds = 0.0
        while job is not None:
            # Values of context variables, such as decimal's precision, are the job's own.
            contextvars.copy_context().run(self._run, *job)
            seconds, job = job[0].job.shutdown_timeout, None
            if not self._is_as_before():
                shutdown.exit_job(self._channel)
            job = self._next()
        shutdown.exit_worker(seconds)

    def _run(self, spec: ForkSpec, payload: bytes) -> None:
        self._prepared.seeds.in_job()
        if spec.payload_file:
            with open(spec.payload_file, "rb") as file:
                payload = file.read()
        JobRun(self._prepared, spec, payload, self._channel, self._gate).run()

    def _is_as_before(self) -> bool:
        """Set the process back to what it was before the job. Returns False if it has to end."""
        try:
            self._channel.wait_kept()
        except OSError:
            return False  # what ends the process reports it
        shutdown.answer_when_asked(self._channel, ["objects"])
        if not self._channel.is_whole or self._prepared.broken is not None or self._leftovers.has_left():
            return False
        shutdown.flush_files()
        if (
            not self._give_gpus_back()
            or not self._renew_callbacks()
            or not self._state.set_back()
            or self._leftovers.has_open_files()
        ):
            return False
        gc.freeze()
        return True

    def _give_gpus_back(self) -> bool:
        """Close the leases of the job's GPUs. Returns False if the job has closed one of them: then its number may be another file's."""
        leases, self._leases = self._leases, []
        try:
            for fd in leases:
                os.close(fd)
        except OSError:
            return False
        return True

    def _renew_callbacks(self) -> bool:
        """Give the next job the callbacks as the controller sent them. Returns False if they cannot be made again."""
        entries: List[Entry] = []
        for index, entry in enumerate(self._prepared.callbacks):
            if entry.hook("on_job_start") is not None or entry.hook("on_job_end") is not None:
                state = self._prepared.states.get(index)
                if state is None:
                    return False
                try:
                    entry = entry._replace(instance=loads(state))
                except Exception:  # noqa: BLE001 - a user's __setstate__ may raise anything
                    return False
            entries.append(entry)
        self._prepared.callbacks = Callbacks(entries)
        return True

    def _next(self) -> Optional[Tuple[ForkSpec, bytes]]:
        """Wait for the next job, and give the process what belongs to it. Returns None if there is none."""
        for fd in (1, 2):
            os.dup2(self._log, fd, inheritable=True)
        found = self._channel.next_job()
        if found is None:
            return None
        header, payload, fds = found
        spec = ForkSpec.from_json(header["spec"])
        zygote = self._prepared.spec
        self._leases = hold_gpus(fds[2:])
        begin_job(fds[:2], spec.slot_env, zygote.cwd or "/", zygote.umask)
        keep_threads_to(spec.cpus)
        if not self._channel.end_reason():
            # A signal that came before was for the last job. The agent says why before it sends one.
            self._gate.forget()
        return spec, payload
