"""The launcher `hydra/launcher=remote`, which Hydra discovers.

Rule: it is thin, because every Hydra app on this machine imports it. The work is in `_sweep`, which is imported when a sweep needs it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher

from hydra_plugins.hydra_remote_launcher._conf import register
from hydra_plugins.hydra_remote_launcher._names import in_front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from hydra_plugins.hydra_remote_launcher._sweep import Sweep

__all__ = ["RemoteLauncher"]

# Only a job can have an older Python, on a host that sees the controller's files. It launches nothing.
if sys.version_info >= (3, 10):  # noqa: UP036 - said above
    register()


class RemoteLauncher(Launcher):
    """Runs the jobs of a sweep on hosts that are reached over SSH, or on this machine if no hosts are given."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._sweep: Sweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Check everything that can be checked before a job starts; from now on, `on_multirun_end` will fire.

        Raises:
            RemoteLauncherError: it names what is wrong; Hydra shows only its message.
            CompactHydraException: Python finds a module of the project instead of ours.
        """
        problem = in_front()
        if problem:
            # The guard cannot be imported here, so the hook is fired now.
            name = config.hydra.job.config_name
            hydra_context.callbacks.on_multirun_end(config=config, config_name=name, job_returns=[])
            raise CompactHydraException(f"hydra.launcher: {problem}")
        from hydra_plugins.hydra_remote_launcher._sweep import Sweep

        self._sweep = Sweep.set_up(self._options, hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one batch of jobs; their JobReturns in the order of job_overrides, FAILED ones among them.

        Raises:
            KeyboardInterrupt: Ctrl-C; finished jobs were collected.
        """
        if self._sweep is None:
            raise RuntimeError("launch() was called before setup()")
        return self._sweep.launch(job_overrides, initial_job_idx)
