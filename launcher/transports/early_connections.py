"""Connections that begin before the run is set up. The handshake goes on while the controller imports, composes and
checks.

Rule: a run that is refused must not have sent anything. Until everything has been checked and the start hooks have
fired, a host sees only a handshake: no user name, no command, nothing of the application. An error in this time is not
shown. The run then connects again, and shows its own errors.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import host_specs
from launcher.transports.factory import begin_transport
from remote_agent.job import IMPORTING

if TYPE_CHECKING:
    from typing_extensions import Self

    from launcher.options import LaunchConf
    from launcher.transports.base import Transport
    from launcher.transports.chosen import ChosenTransport

__all__ = ["EarlyConnections"]

#: How many hosts are connected to early. The others wait for the run.
_AT_ONCE = 8
#: Seconds to wait until it is chosen how hosts are reached, which asks programs on this machine.
_CHOSEN = 0.3
#: What every run imports next. Until it is chosen, nothing else can be done.
MEANWHILE = (
    "launcher.code.application.application",
    "launcher.code.files.snapshot",
    "launcher.runs.folder",
    "launcher.setup.callbacks",
    "launcher.engine.scheduling.scheduler",
    "launcher.results.job_returns",
    "launcher.serialization.pickler",
    "launcher.setup.kinds.run_setup",
    "launcher.engine.engine",
    "launcher.session.session",
)


class EarlyConnections:
    """The early connections of one run. A context manager: leaving it drops what the run has not taken."""

    def __init__(self, begun: Iterable[tuple[HostSpec, ChosenTransport]] = ()) -> None:
        self._begun = {spec.name: (spec, transport) for spec, transport in begun}

    @classmethod
    def begin(cls, hosts: Sequence[Any] | None, options: LaunchConf) -> EarlyConnections:
        """Begin to connect to the run's hosts.

        A host whose unknown key is to be accepted is left out, because the handshake alone would write that key to a
        file.

        Args:
            hosts, options: as the run gets them.

        Raises:
            InventoryError: a host cannot be used, or is named twice.
        """
        # A run that begins while a host imports the application is refused. Hosts that do not come from a file can be
        # read only once.
        if os.environ.get(IMPORTING) or (options.hosts_file and not os.path.isfile(options.hosts_file)):
            return cls()
        specs = [spec for spec in host_specs(hosts, options) if not spec.is_local and spec.host_keys == "strict"]
        early = cls((spec, begin_transport(spec)) for spec in specs[:_AT_ONCE])
        deadline = time.monotonic() + _CHOSEN
        for name in MEANWHILE:
            if all(one.wait_chosen(0.0) for _, one in early._begun.values()):
                break
            importlib.import_module(name)
        chosen = (one.wait_chosen(max(0.0, deadline - time.monotonic())) for _, one in early._begun.values())
        if "fabric" in chosen:
            # The handshakes cannot go on without this import. After it they need nothing else from this process for a
            # while. Over a kept connection, nobody needs it.
            from launcher.transports.ssh.lazy_imports import import_paramiko

            with contextlib.suppress(ImportError):  # the run shows it when it connects
                import_paramiko()
        return early

    def pop(self, spec: HostSpec) -> Transport | None:
        """Remove and return the transport to a host; None if no connection to just this host was begun."""
        begun, transport = self._begun.get(spec.name, (None, None))
        if begun != spec:
            return None
        del self._begun[spec.name]
        return transport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connections that the run has not taken."""
        while self._begun:
            _, (_, transport) = self._begun.popitem()
            transport.close()
