"""The interface of a callback: hooks around a run and around each of its jobs.

Rule: a callback is any object that has some of these methods. Deriving from `Callback` is only a convenience: it makes
every hook a no-op. A subclass of `hydra.experimental.callback.Callback` works unchanged, and a callback that derives
from this class works in plain Hydra.

Every hook takes `**kwargs`, so that a later version may pass more without breaking existing callbacks. Hooks are called
with keywords only. `*args` is here so that type checkers let a subclass name the keywords that it wants.
"""

from typing import Any

__all__ = ["CONTROLLER_HOOKS", "HOOKS", "HOST_HOOKS", "Callback"]

#: Hooks that fire on the controller, in the process that started the run.
CONTROLLER_HOOKS = (
    "on_run_start",
    "on_run_end",
    "on_multirun_start",
    "on_multirun_end",
    "on_job_return",
    "on_job_report",
    "on_host_lost",
)
#: Hooks that fire on the host, in the process of the job (or in its epilogue, if the job died).
HOST_HOOKS = ("on_job_start", "on_job_end")
HOOKS = CONTROLLER_HOOKS + HOST_HOOKS


class Callback:
    """Hooks around a run and around each of its jobs. All of them are optional.

    The first five hooks and their keyword arguments are those of `hydra.experimental.callback.Callback` (Hydra 1.3).
    Start hooks fire in the composed order of `hydra.callbacks`, end hooks in reverse.

    A hook that raises is reported with its traceback, in the log of its job and in the events of the run. The class
    attribute `on_error` decides what happens next:

    * `"warn"` (the default): the run goes on;
    * `"fail"`: the job that the hook belongs to becomes FAILED;
    * `"abort"`: the run stops: no more jobs start, running jobs are cancelled, end hooks fire.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    on_error = "warn"

    def on_run_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller in RUN mode, before the job. `config` is a DictConfig. Edits reach the job."""

    def on_run_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller in RUN mode, after the job, whatever happened to it. kwargs: `job_return`."""

    def on_multirun_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller in MULTIRUN mode, before any job."""

    def on_multirun_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller in MULTIRUN mode, after all jobs, whatever happened to them. kwargs: `job_returns`."""

    def on_job_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """On the host in the job's process, once per attempt, just before application code. kwargs: `task_function`."""

    def on_job_end(self, config: Any, job_return: Any, *args: Any, **kwargs: Any) -> None:
        """On the host, once per started attempt, after application code, however it ended.

        Fires in the job's process. If that was killed, it fires in an epilogue, with the callback as it was after
        `on_job_start`. `job_return` may be read and edited.
        """

    def on_job_return(self, config: Any, job_return: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller, when a JobReturn arrives, in that order. Plain Hydra does not have this hook."""

    def on_job_report(self, config: Any, job: Any, step: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller, when a job has reported (`launcher.report`). `job.stop()` asks it to stop. Plain Hydra does not have this hook."""

    def on_host_lost(self, config: Any, host: str, jobs: Any, *args: Any, **kwargs: Any) -> None:
        """On the controller, when a host is given up. `jobs` are the numbers of the jobs that it still had."""
