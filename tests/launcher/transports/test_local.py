"""This machine as a host."""

from __future__ import annotations

import os
import signal

import pytest

from launcher.hosts.host_spec import HostSpec
from launcher.transports.factory import make_transport
from tests.launcher.transports.links import (
    PATIENCE,
    read_all,
)


class TestLocal:
    """The local transport, which is a subprocess."""

    def test_ctrl_c_in_the_terminal_does_not_reach_it(self) -> None:
        """Ctrl-C goes to the terminal's foreground process group. The subprocess is in another session."""
        transport = make_transport(HostSpec("local", "local"))
        said = read_all(transport.open("ps -o sid= -p $$"))
        assert int(said) != os.getsid(0)
        transport.close()

    def test_leaves_no_descriptors(self) -> None:
        """Hundreds of channels hold nothing open after they were closed."""
        transport = make_transport(HostSpec("local", "local"))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            channel = transport.open("echo x")
            read_all(channel)
            channel.exit_status(PATIENCE)
            channel.close()
        assert len(os.listdir("/proc/self/fd")) <= before
        transport.close()

    def test_kills_a_command_that_ignores_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is killed with its whole group, after a grace period."""
        monkeypatch.setattr("launcher.transports.process_channel._GRACE", 0.0)
        transport = make_transport(HostSpec("local", "local"))
        channel = transport.open("trap '' TERM HUP PIPE; echo ready; tail -f /dev/null >/dev/null; echo never")
        assert channel.recv(6) == b"ready\n"
        channel.close()
        assert channel.exit_status(PATIENCE) == 128 + signal.SIGKILL


# --- SSH ------------------------------------------------------------------------------------------------------------
