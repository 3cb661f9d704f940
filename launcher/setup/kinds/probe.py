"""A run that the launcher makes for itself: the one job of `launcher doctor`, or none, where an environment is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from launcher.setup.kinds.run_setup import RunSetup

if TYPE_CHECKING:
    from launcher.environments.lock import Lock
    from launcher.environments.plan import EnvironmentSource
    from launcher.hosts.host_spec import HostSpec

__all__ = ["ProbeSetup"]


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeSetup(RunSetup):
    """Such a run. `last` never means it.

    Attributes:
        source: what says what a host installs of a lock; None for what says it in any run.
    """

    kind: ClassVar[str] = "probe"
    is_reproduction: ClassVar[bool] = True
    source: Callable[[Lock], EnvironmentSource] | None = None

    def environment_source(self, lock: Lock) -> EnvironmentSource:
        """What says what a host installs of a lock."""
        return super().environment_source(lock) if self.source is None else self.source(lock)

    def package_roots(self, spec: HostSpec) -> list[str]:
        """None: no code of a project is sent."""
        return []
