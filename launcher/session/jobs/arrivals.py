"""What arrives of jobs: reports and results, each with its hook.

Rule: a job that `on_job_return` or `on_job_report` has failed is FAILED, and its result is kept. A config that cannot be decoded costs a hook its
config, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.runs.journal import Returned
    from launcher.session.run_session import RunSession
    from remote_agent.job import JobReturn

__all__ = ["Arrivals"]

#: Of how many jobs that report the config is kept.
_MAX_CONFIGS = 100


class Arrivals:
    """Fires the hooks of jobs, in the thread that drives the session."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        #: Number of a job -> its config for `on_job_report`; and the error of that hook if it has failed the job.
        self._configs: dict[int, Any] = {}
        self._failed: dict[int, dict[str, Any]] = {}

    def fire_reports(self, num: int) -> None:
        """Fire `on_job_report` for what a job has reported since the last time."""
        job = self._session.unfinished.get(num)
        for event in self._session.engine.pop_reports(num) if job is not None else ():
            if num in self._failed or self._session.hooks.is_cut:
                return
            report = event.report
            self._session.wait_shown()
            records = self._session.hooks.fire(
                "on_job_report",
                num=num,
                config=self._report_config(num),
                job=job,
                step=report.step,
                values=report.values,
            )
            bad = [record for record in records if not record["ok"] and record["on_error"] == "fail"]
            if bad:
                # It becomes FAILED when it has ended.
                self._failed[num] = bad[0]["error"]
                self._session.engine.cancel(num)

    def _report_config(self, num: int) -> Any:
        """Return the config of a job that runs. It is decoded once for all reports of the job, as long as few jobs report."""
        if num not in self._configs:
            while len(self._configs) >= _MAX_CONFIGS:
                del self._configs[next(iter(self._configs))]
            try:
                self._configs[num] = self._session.made_returns.report_config(num)
            except Exception as error:  # as in `_hook_config`  # noqa: BLE001
                self._session.hooks.warn(
                    "config", f"job {num}: its config cannot be decoded: {type(error).__name__}: {error}"
                )
                self._configs[num] = None
        return self._configs[num]

    def receive(self, item: Returned, only: Iterable[int] | None = None) -> JobReturn:
        """Make the JobReturn and fire its hook. `only`: the positions of the callbacks for which it fires."""
        num = item.event.num
        self._configs.pop(num, None)
        failed = self._failed.pop(num, None)
        if failed is not None:
            self._session.made_returns.fail_by_hook(num, failed)
        job_return = self._session.made_returns.make(item)
        if self._session.callbacks.has("on_job_return"):
            self._session.wait_shown()
            records = self._session.hooks.fire(
                "on_job_return",
                only=only,
                config=self._hook_config(job_return, item.payload),
                job_return=job_return,
                num=job_return.num,
            )
            bad = [record for record in records if not record["ok"] and record["on_error"] == "fail"]
            if bad:
                self._session.made_returns.fail_by_hook(item.event.num, bad[0]["error"])
                job_return = self._session.made_returns.make(item)
        job = self._session.unfinished.pop(item.event.num, None)
        if job is not None:
            job.has_returned(job_return)
        return job_return

    def _hook_config(self, job_return: JobReturn, payload: bytes | None) -> Any:
        try:
            return self._session.made_returns.hook_config(job_return, payload)
        except Exception as error:  # the user's data may be wrong, and that must not stop the run  # noqa: BLE001
            self._session.hooks.warn(
                "config", f"job {job_return.num}: its config cannot be decoded: {type(error).__name__}: {error}"
            )
            return None
