"""The contract of a callback: what may happen around a run and around each of its jobs.

Rule: a callback is any object that has some of these methods. Deriving from `Callback` is a convenience that makes
every hook a no-op; a subclass of `hydra.experimental.callback.Callback` works unchanged, and a callback written
against this class works in plain Hydra.

Every hook takes `**kwargs`, so that a later version may say more without breaking an existing callback. They are called with keywords
alone; `*args` stands here so that type checkers let a subclass name the keywords that it wants.
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
    "on_host_lost",
)
#: Hooks that fire on the host, in the process of the job (or in its epilogue, where the job died).
HOST_HOOKS = ("on_job_start", "on_job_end")
HOOKS = CONTROLLER_HOOKS + HOST_HOOKS


class Callback:
    """Hooks around a run and around each of its jobs; all of them optional.

    The first five hooks and their keyword arguments are those of `hydra.experimental.callback.Callback` (Hydra 1.3).
    Start hooks fire in the composed order of `hydra.callbacks`, end hooks in reverse.

    A hook that raises is reported, with its traceback, in the log of its job and in the events of the run. What
    happens next is decided by the class attribute `on_error`:

    * `"warn"` (the default): the run goes on;
    * `"fail"`: the job that the hook belongs to becomes FAILED;
    * `"abort"`: the run stops: no further job starts, running jobs are cancelled, end hooks fire.
    """

    __module__ = "remote_agent"  # for good: pickles name it

    on_error = "warn"

    def on_run_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, RUN mode, before the job. `config` is a DictConfig; edits reach the job."""

    def on_run_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, RUN mode, after the job, whatever happened to it. kwargs: `job_return`."""

    def on_multirun_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, MULTIRUN mode, before any job."""

    def on_multirun_end(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, MULTIRUN mode, after all jobs, whatever happened to them. kwargs: `job_returns`."""

    def on_job_start(self, config: Any, *args: Any, **kwargs: Any) -> None:
        """Host, in the job's process, once per attempt, right before application code. kwargs: `task_function`."""

    def on_job_end(self, config: Any, job_return: Any, *args: Any, **kwargs: Any) -> None:
        """Host, once per started attempt, after application code, however it ended.

        Fires in the job's process; where that process was killed, in an epilogue that restores the callback as it was
        after `on_job_start`. `job_return` may be read and edited.
        """

    def on_job_return(self, config: Any, job_return: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, as each JobReturn arrives, in arrival order. Not known to plain Hydra."""

    def on_host_lost(self, config: Any, host: str, jobs: Any, *args: Any, **kwargs: Any) -> None:
        """Controller, when a host is given up; `jobs` are the numbers of the jobs it still had."""
