"""A job that can be run again, with all that it needs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from launcher.code.application.task import as_main
from launcher.options import LaunchConf
from launcher.setup.callbacks import build_callbacks
from remote_agent.callbacks.composite import Callbacks

if TYPE_CHECKING:
    from launcher.environments.lock import Lock
    from launcher.reproduce.compare import Outcome
    from launcher.setup.kinds.again import HydraAgain, PlainAgain
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["Target", "decoder_of"]


@dataclasses.dataclass(frozen=True)
class Target:
    """A job that can be run again.

    Attributes:
        name: what it is called.
        setup: its run's setup.
        before: how it ended; None if unknown.
        env: the job's variables whose values are known here.
        notes: what the user should know.
        callbacks: of a job without a record: `_target_` nodes. Callbacks are built from them only if hooks are asked
        for.
        lock: the packages of the environment on its host; None if it had none.
        environment: the key of that environment, if it is known.
    """

    name: str
    setup: PlainAgain | HydraAgain
    before: Outcome | None
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    lock: Lock | None = None
    environment: str = ""

    def built_callbacks(self) -> Callbacks:
        """Build the callbacks, because their hooks are asked for."""
        if not self.callbacks:
            return self.setup.callbacks
        with as_main(self.setup.main_module or ""):
            return build_callbacks(self.callbacks, (), LaunchConf())


def decoder_of(setup: RunSetup, results: str) -> Any:
    """Return the decoder of this run's values, with its own policy."""
    return dataclasses.replace(setup.decoder, policy=results)
