"""A job that is run again as it was, without composing it again.

Rule: its payload, its overrides and what its run's jobs shared are given, byte for byte. Only what is unknown is made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.code.files.snapshot import Snapshot
from launcher.engine.requests import QueuedJob
from launcher.hosts.host_spec import HostSpec
from launcher.runs.journal import FOLDER
from launcher.setup.kinds.hydra import HydraSetup
from launcher.setup.kinds.run_setup import RunSetup
from launcher.setup.prepared import PreparedRun
from remote_agent.callbacks.composite import Callbacks
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.specs.zygote import Command

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.environments.lock import Lock
    from launcher.environments.plan import EnvironmentSource

__all__ = ["HydraAgain", "PlainAgain"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Again(RunSetup):
    """A run of one job that was composed earlier.

    Attributes:
        payload, overrides, needs: the job's.
        shared: what its run's jobs shared; empty if there was no run.
        by_value, values: which parts of that were pickled by value.
        is_exact: run the code of `snapshot`, also on this machine.
        started_in: the folder that the application was started in.
        started_as: its `sys.argv` and what belongs to it (see `RunSetup.command`), if known.
        asked_as: how its run asked for values, if known.
        earlier: the folder of its run's journal, if there is one.
        preferred: the major and minor version of Python that its run took first for environments, if known.
    """

    is_reproduction: ClassVar[bool] = True
    payload: bytes = b""
    overrides: tuple[str, ...] = ()
    needs: Resources | None = None
    shared: bytes = b""
    by_value: bool = False
    values: tuple[str, ...] = ()
    is_exact: bool = False
    started_in: str = ""
    started_as: Command | None = None
    asked_as: str = ""
    earlier: Path | None = None
    preferred: tuple[int, ...] = ()

    @property
    def codec(self) -> str:
        """The form of values that the first run used, so that they can be compared byte for byte.

        A reader decodes what the policy allows.
        """
        return self.asked_as or super().codec

    @property
    def waits_for_task(self) -> bool:
        """Never: a task that was given as an object is in what the run's jobs shared."""
        return self.task is None and not self.shared

    def command(self, is_sent: bool) -> Command:
        """Return the command that the job had."""
        return self.started_as or super().command(is_sent)

    def sends_code(self, spec: HostSpec) -> bool:
        """Whether code is sent to this host. Exact code is sent to this machine, too."""
        return self.is_exact or super().sends_code(spec)

    def environment_source(self, lock: Lock) -> EnvironmentSource:
        """What its run resolved counts. If it is exact, nothing else does, and the same version of Python is taken first."""
        from launcher.setup.environments import source_of

        prefers = self.preferred if self.is_exact else ()
        return source_of(
            lock,
            self.folder / FOLDER,
            self.options,
            earlier=self.earlier,
            prefers=prefers,
            is_exact=self.is_exact,
        )

    def with_code(self, taken: Snapshot | None = None) -> Self:
        """Return the same job with the code as it is now. An exact job already has the run's code."""
        return self if self.is_exact else super().with_code(taken)

    def with_job(self, content: dict[str, Any]) -> Self:
        """Return the same setup with another payload, pickled from this."""
        return dataclasses.replace(self, payload=self.pickler.dumps(content), **self._by_value())

    def without_callbacks(self) -> Self:
        """Return the same setup without callbacks, so that no hook of the job fires."""
        shared = self.shared
        if shared:
            shared = self.pickler.dumps({**self.pickler.loads(shared), "callbacks": []})
        return dataclasses.replace(self, callbacks=Callbacks([]), shared=shared, **self._by_value())

    def _by_value(self) -> dict[str, Any]:
        values = tuple(dict.fromkeys([*self.values, *self.pickler.values]))
        return {"by_value": self.by_value or self.pickler.by_value, "values": values}

    def prepare(self) -> PreparedRun:
        """Use what the run's jobs shared. It is made only for a job without a run."""
        if self.shared:
            return PreparedRun(self, self.shared, by_value=self.by_value, values=self.values)
        return dataclasses.replace(super().prepare(), by_value=self.by_value, values=self.values)

    def job(self, num: int, task: Any, config: Any, overrides: Sequence[str]) -> QueuedJob:
        """Return the job as it was."""
        return self.queued(num, self.overrides, self.folder, "job", self.payload, needs=self.needs)

    def cwd(self, is_sent: bool) -> str:
        """Return the folder that it was started in."""
        started_in = self.started_in or os.getcwd()
        if is_sent and self.snapshot is not None:
            return self.snapshot.relative(Path(started_in))
        return started_in if os.path.isdir(started_in) else os.getcwd()


@dataclasses.dataclass(frozen=True, eq=False)
class PlainAgain(_Again):
    """A plain function's job, again."""

    kind: ClassVar[str] = "job_again"


@dataclasses.dataclass(frozen=True, eq=False)
class HydraAgain(_Again, HydraSetup):
    """A Hydra app's job, again."""

    kind: ClassVar[str] = "hydra_job_again"
