"""Builds environments of packages on hosts, and runs nothing there.

Rule: it is a run without a job, so that all that holds for a run holds here: a link that is lost is made again, of many at once one builds,
a signal ends it. No hook fires, no code of the user's is sent, and afterwards neither side has one more run than before.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import events
from launcher.environments.lock import Lock
from launcher.errors import RunInterrupted, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from launcher.runs import index as run_index
from launcher.session.session import Observer, Session, SessionConf
from launcher.setup.environments import locks_of
from launcher.setup.kinds.probe import ProbeSetup
from launcher.transports.early_connections import EarlyConnections

if TYPE_CHECKING:
    from launcher.environments.plan import EnvironmentSource

__all__ = ["PreparedHost", "build_environments", "locks_for"]

#: Imported there from the agent's own code, when the environment is built: no project is needed for that.
_TASK = "remote_agent.probe:probe"
#: Seconds between two looks at whether it was interrupted.
_LOOK = 0.5


@dataclasses.dataclass(frozen=True)
class PreparedHost:
    """What came of one host.

    Attributes:
        key: names the environment there; empty where there is none.
        is_new: it was built now.
        total: the bytes of its files, as they are sent.
        fetched: those of them that the host got from its own internet now.
        phase, why, next_step: of what went wrong; empty where nothing did.
    """

    host: str
    key: str = ""
    is_new: bool = False
    total: int = 0
    fetched: int = 0
    phase: str = ""
    why: str = ""
    next_step: str = ""


def locks_for(specs: Sequence[HostSpec], options: LaunchConf, start: Path) -> dict[str, Lock]:
    """The lock of each host that gets an environment, by the host's name.

    Args:
        start: the folder of the project.

    Raises:
        UsageError: a source cannot be used, or no host gets an environment.
    """
    locks = locks_of(specs, options, start, None)
    if not locks:
        raise UsageError("no host gets an environment: name one with --environment, such as --environment auto")
    return locks


def build_environments(
    specs: Sequence[HostSpec],
    options: LaunchConf,
    locks: Mapping[str, Lock],
    observers: Sequence[Observer] = (),
    early: EarlyConnections | None = None,
    source: Callable[[Lock], EnvironmentSource] | None = None,
) -> list[PreparedHost]:
    """Build the environment of each host that has a lock; returns when each is there, or cannot be had.

    Args:
        observers: called with each event of the run without a job.
        source: what says what a host installs of a lock; None for what says it in any run.

    Raises:
        RunInterrupted: by a signal. What has arrived on hosts stays there.
    """
    specs = [spec for spec in specs if spec.name in locks]
    with tempfile.TemporaryDirectory(prefix="launcher-prepare-") as folder:
        alone = dataclasses.replace(options, hosts=(), hosts_file=None, environment=None, extras=(), groups=())
        bare = [dataclasses.replace(spec, environment=None, extras=(), setup=(), env={}) for spec in specs]
        setup = ProbeSetup.make(
            "MULTIRUN", None, [], hosts=bare, callbacks=(), folder=folder, options=alone, results="safe",
            outputs=False, on_host_loss="fail",
        )  # fmt: skip
        setup = dataclasses.replace(setup, task=_TASK, task_name="prepare", root=None, main_module=None, locks=locks)
        waiting = _Waiting([spec.name for spec in specs])
        try:
            with Session(setup, SessionConf([*observers, waiting], early=early)) as session:
                waiting.wake = session.wake
                waiting.wait(session)
        finally:
            run_index.remove(setup.run_id)
    return [waiting.done[spec.name] for spec in specs]


class _Waiting:
    """An observer that knows of which hosts nothing has come yet."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        self.done: dict[str, PreparedHost] = {}
        self.wake: Callable[[], None] = lambda: None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.EnvironmentReady():
                self._add(PreparedHost(event.host, event.key, event.is_new, event.total, event.fetched))
            case events.HostUnusable():
                self._add(PreparedHost(event.host, phase=event.phase, why=event.why, next_step=event.next_step))
            case events.HostLost():
                self._add(PreparedHost(event.host, phase="connection", why=event.why))

    def _add(self, host: PreparedHost) -> None:
        self.done.setdefault(host.host, host)
        self.wake()

    def wait(self, session: Session) -> None:
        """Wait for all of them.

        Raises:
            RunInterrupted: by a signal.
        """
        interrupts = session.interrupts
        with interrupts.ours():
            while len(self.done) < len(self._hosts) and not interrupts and not interrupts.hangup:
                session.pump(_LOOK)
        if interrupts or interrupts.hangup:
            raise interrupts.error() if interrupts else RunInterrupted(interrupts.hangup, is_terminated=True)
