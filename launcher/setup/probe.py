"""The run of `launcher doctor`'s one job."""

from __future__ import annotations

from typing import ClassVar

from launcher.setup.run_setup import RunSetup

__all__ = ["ProbeSetup"]


class ProbeSetup(RunSetup):
    """A run of one probe. `last` never means such a run."""

    kind: ClassVar[str] = "probe"
    is_reproduction: ClassVar[bool] = True
