"""The JobReturns of one session, made from the journal and from what hooks decided.

Rule: a JobReturn is made each time it is requested, so that finished jobs cost no memory. A job that `on_job_return` has failed stays
failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.errors import LauncherError
from launcher.results.job_returns import load_returned, make_job_return
from launcher.runs.journal import Returned
from remote_agent.job import JobError, JobReturn, JobStatus, RemoteJobError

if TYPE_CHECKING:
    from launcher.engine.engine import Engine
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["SessionReturns"]

_FAILED_HOOK = "failed_hook/"


class SessionReturns:
    """Makes the JobReturns.

    Args:
        setup_now: returns the run's present setup. The first job may bring its task.
    """

    def __init__(self, setup_now: Callable[[], RunSetup], engine: Engine) -> None:
        self._setup_now = setup_now
        self._engine = engine
        self._failed_hooks: dict[int, JobError] = {}

    def load(self, num: int) -> JobReturn:
        """Return the JobReturn of a job, from the journal."""
        return self.make(load_returned(self._engine.reader, num))

    def make(self, returned: Returned) -> JobReturn:
        """Return the JobReturn of a job that has just arrived."""
        num, setup = returned.event.num, self._setup_now()
        job_return = make_job_return(returned, f"{setup.run_id}#{num}", setup.code, setup.decoder, self._own_config)
        failed = self._failed_hooks.get(num)
        if failed is not None:
            job_return.status = JobStatus.FAILED
            job_return.error = failed
            job_return.return_value = RemoteJobError(failed)
        return setup.finish_return(job_return)

    def hook_config(self, job_return: JobReturn, payload: bytes | None = None) -> Any:
        """Return the config for `on_job_return`, as it was sent. A host's pickle is not decoded for a hook that may never use it.

        `payload`: what was sent, if it is at hand; the journal has it, too.
        """
        num = job_return.num
        own = self._own_config(num) if payload is None else self._setup_now().own_config(num, payload)
        return self._setup_now().hook_config(job_return.output_dir, *own)

    def report_config(self, num: int) -> Any:
        """Return the config for `on_job_report`, as it was sent."""
        job = self._engine.reader.job(num)
        if job is None:
            raise LauncherError(f"job {num} is not in the journal")
        return self._setup_now().hook_config(job[1], *self._setup_now().own_config(num, job[2]))

    def fail_by_hook(self, num: int, error: dict[str, Any]) -> None:
        """Make a job FAILED, now and when the run is resumed, because an `on_job_return` with the policy `fail` has raised."""
        failed = JobError("hook", error["type"], error["message"], error["traceback"])
        self._failed_hooks[num] = failed
        self._engine.record(meta={f"{_FAILED_HOOK}{num}": json.dumps(failed.to_json())})

    def restore(self, meta: dict[str, str]) -> None:
        """Read from the journal which jobs hooks have failed."""
        for key, value in meta.items():
            if key.startswith(_FAILED_HOOK):
                self._failed_hooks[int(key[len(_FAILED_HOOK) :])] = JobError.from_json(json.loads(value))

    def _own_config(self, num: int) -> tuple[Any, Any]:
        job = self._engine.reader.job(num)
        if job is None:
            raise LauncherError(f"job {num} is not in the journal")
        return self._setup_now().own_config(num, job[2])
