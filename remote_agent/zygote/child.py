"""What a forked child of the zygote does: it becomes the job's process, and runs the job or the epilogue.

Rule: the zygote imports this before it forks, so that a child imports nothing.
"""

import os
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Type

from remote_agent.callbacks.composite import Callbacks
from remote_agent.job_process import shutdown
from remote_agent.job_process.channel import JobChannel, move_high
from remote_agent.job_process.epilogue import Epilogue
from remote_agent.job_process.process import become_job, hold_gpus, keep_to
from remote_agent.job_process.run import JobRun, Prepared
from remote_agent.job_process.threads import limit_loaded, without_users
from remote_agent.protocol.messages import Start
from remote_agent.protocol.specs.job import EpilogueSpec, ForkSpec
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.zygote.imports.prepare import as_unusable

if TYPE_CHECKING:
    from remote_agent.zygote.reuse.worker import Worker

__all__ = ["run_child"]


def run_child(
    header: Start,
    payload: bytes,
    fds: List[int],
    get_prepared: Callable[[], Prepared],
    spec: Optional[ZygoteSpec],
    worker: "Optional[Type[Worker]]",
) -> JobChannel:
    """Run one `fork` or `epilogue` frame. Returns the channel over which its result was sent.

    Args:
        fds: the job's socket, its stdout file, its stderr file, and the leases of its GPUs.
        get_prepared: returns what the zygote prepared. Imports the application if the zygote has not.
        spec: the spec of the `prepare` message, if nothing is prepared yet.
        worker: goes on with further jobs after this one, if jobs are to share processes. It does not return.

    Raises:
        OSError: this process cannot become a job's process.
    """
    epilogue = EpilogueSpec.from_json(header["spec"]) if header["t"] == "epilogue" else None
    job = ForkSpec.from_json(header["spec"]) if epilogue is None else epilogue.fork
    zygote_spec = get_prepared().spec if spec is None else spec
    log = move_high(os.dup(1)) if worker is not None else -1
    leases = hold_gpus(fds[3:])
    variables = without_users(job.slot_env, job.threads)
    channel_fd = become_job(fds[:3], variables, zygote_spec.cwd or "/", zygote_spec.umask)
    keep_to(job.cpus)
    limit_loaded(variables)
    channel = JobChannel(channel_fd, job.spool, job.job.attempt_id)
    os.register_at_fork(after_in_child=channel.close_in_child)
    prepared = get_prepared() if spec is None else _prepared_here(get_prepared, spec)
    if worker is not None and epilogue is None:
        if spec is not None:
            shutdown.note_open_files()
        worker(prepared, channel, log, leases).serve(job, payload)
    prepared.seeds.in_job()
    state, payload = (b"", payload) if epilogue is None else (payload, b"")
    if job.payload_file:
        with open(job.payload_file, "rb") as file:
            payload = file.read()
    if epilogue is not None:
        Epilogue(prepared, epilogue, payload, channel, state).run()
    else:
        JobRun(prepared, job, payload, channel).run()
    return channel


def _prepared_here(get_prepared: Callable[[], Prepared], spec: ZygoteSpec) -> Prepared:
    """For `spawn`: import the application in this process. If that fails, the job fails."""
    try:
        return get_prepared()
    except BaseException as error:  # noqa: BLE001 - the application's import may raise anything
        broken = Prepared(_no_task, Callbacks(), spec)
        broken.broken = as_unusable(error).error
        return broken


def _no_task(config: Any) -> None:
    raise AssertionError("the application could not be imported")
