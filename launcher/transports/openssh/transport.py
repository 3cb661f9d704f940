"""The SSH transport over the `ssh` program.

Rule: an argument list and no shell of ours, in a session without a terminal. A run is never asked for anything. A channel says whether
the command ended or the link was lost: the end is what the host has said, and all else is a loss.

Each channel is an `ssh` process: over a kept connection that costs no login, and else one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.errors import AgentError, ConnectionLost, HostKeyError, HostUnreachable
from launcher.transports.base import Way
from launcher.transports.openssh import command as ssh_command
from launcher.transports.openssh.log import SshLog
from launcher.transports.openssh.messages import Dropped, explain, lost, too_late, too_many_sessions
from launcher.transports.process_channel import ProcessChannel
from launcher.transports.ssh.config import SshTarget
from launcher.transports.ssh.route import SshOptions, resolve

__all__ = ["OpenSshChannel", "OpenSshTransport"]

#: Seconds after the time that ssh itself has for a connection. Then it hangs.
_EXTRA_SECONDS = 5.0
#: Seconds for what ssh has written to arrive when it has ended.
_LAST_WORDS = 1.0
#: Seconds for the host to judge the keys. A person may have to touch one.
_LOGIN_TIMEOUT = 90.0
#: Seconds for the host to begin the command.
_BEGIN_TIMEOUT = 30.0
#: Seconds for ssh to end after its output has ended, and to say the rest after its end.
_END_TIMEOUT = 5.0
#: What ssh ends with if it fails itself, and if the command ends so.
_FAILED = 255
#: As over fabric: a host that sheds load is tried again this often, after pauses that begin with this and double.
_RETRIES = 6
_FIRST_DELAY = 0.2


class OpenSshChannel(ProcessChannel):
    """An `ssh` process as a `launcher.transports.base.Channel`.

    Args:
        stands: says whether the kept connection stands, over which this is a session.
    """

    def __init__(
        self, host: str, process: subprocess.Popen[bytes], log: SshLog, stands: Callable[[], bool] | None = None
    ) -> None:
        self.log = log
        self._stands = stands
        super().__init__(host, process)

    def recv(self, size: int) -> bytes:
        """See `Channel.recv`."""
        data = super().recv(size)
        if not data and self.is_lost():
            raise self.lost("")
        return data

    def is_lost(self) -> bool:
        """Whether the output has ended because the link is gone."""
        if not self.has_ended.wait(_END_TIMEOUT):
            # The command has closed its output and goes on: a lost link would have ended ssh.
            return False
        if self.process.returncode != _FAILED or self.log.has_ended:
            return False
        # The client of a kept connection is not told of a command that a signal ended.
        self.log.has_ended = self._stands is not None and self._stands()
        return not self.log.has_ended

    def exit_status(self, timeout: float) -> int | None:
        """See `Channel.exit_status`. A command that died of a signal has none."""
        status = super().exit_status(timeout)
        # ssh says 255 of a signal, of a loss and of 255.
        return None if status == _FAILED and not self.log.has_status else status

    def lost(self, why: str) -> ConnectionLost:
        """See `ProcessChannel.lost`."""
        self.has_ended.wait(_END_TIMEOUT)
        return lost(self.host, self.log)

    def kill(self) -> None:
        """End the process at once. What it has said by then can still be read."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.has_ended.wait(_END_TIMEOUT)
        self.has_said_all.wait(_END_TIMEOUT)
        self.close()

    def on_end(self) -> None:
        """See `ProcessChannel.on_end`."""
        self.log.finish()


class OpenSshTransport:
    """A host over the `ssh` program.

    Args:
        host: as the user named it, for messages.
        socket: of a kept connection to it; None: each session has a login of its own.
        kept_hops: the sockets of kept connections to jump hosts, by alias.
        stands: says whether a kept connection stands.
    """

    def __init__(
        self,
        host: str,
        options: SshOptions,
        socket: str | None = None,
        kept_hops: dict[str, str] | None = None,
        stands: Callable[[str], bool] = lambda socket: False,
    ) -> None:
        self.host = host
        self._options = options
        self._socket = socket
        self._kept_hops = kept_hops or {}
        self._stands = stands
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._channels: list[OpenSshChannel] = []
        self._folder: Path | None = None
        self._numbers = itertools.count()

    @property
    def way(self) -> Way:
        """See `Transport.way`."""
        return Way("openssh", "")

    def open(self, command: str) -> OpenSshChannel:
        """See `Transport.open`."""
        with self._lock:
            if self._stop.is_set():
                raise ConnectionLost(self.host, "connect", "the transport was closed")
            try:
                return self._over_kept(command) if self._socket is not None else self._with_login(command)
            finally:
                if self._stop.is_set():
                    self._drop()

    def reset(self) -> None:
        """See `Transport.reset`. A kept connection is not ours to end."""
        channels, self._channels = self._channels, []
        for channel in channels:
            if channel.log.is_begun:
                channel.close()
            else:
                channel.kill()

    def close(self) -> None:
        """See `Transport.close`."""
        self._stop.set()
        self._drop()

    def _drop(self) -> None:
        self.reset()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # -- over a kept connection ------------------------------------------------------------------------------------

    def _over_kept(self, command: str) -> OpenSshChannel:
        socket = str(self._socket)
        argv = ssh_command.over_kept(self._program(), socket)
        channel = self._start(argv, command, lambda: self._stands(socket))
        log = channel.log
        if log.wait(lambda log: log.is_begun, _BEGIN_TIMEOUT) and log.is_begun:
            return channel
        is_silent = not log.is_over
        channel.kill()
        self._check_stop()
        if log.is_refused_by_master and not is_silent:
            raise too_many_sessions(self.host)
        why = "the kept connection does not answer" if is_silent else "the kept connection is gone"
        raise ConnectionLost(self.host, "connect", why)

    # -- with a login ------------------------------------------------------------------------------------------------

    def _with_login(self, command: str) -> OpenSshChannel:
        target, hops = resolve(self.host, self._options)
        folder = self._private_folder()
        config = ssh_command.write_config(folder, self.host, self._options, target, hops, self._kept_hops)
        argv = ssh_command.own_login(self._program(), config, self._options)
        delay = _FIRST_DELAY
        for left in reversed(range(_RETRIES + 1)):
            channel = self._start(argv, command)
            try:
                return self._begun(channel, target, hops)
            except Dropped as dropped:
                self._check_stop()
                if left == 0:
                    raise HostUnreachable(
                        self.host,
                        "connect",
                        f"{dropped}, {_RETRIES + 1} times in a row",
                        "check its ProxyCommand in ~/.ssh/config"
                        if target.proxy_command
                        else "it may be overloaded or limit connections (MaxStartups, PerSourcePenalties in its sshd_config)",
                    ) from None
            # Many controllers that were dropped at the same time must not all come back at the same time.
            self._stop.wait(delay * (0.5 + random.random()))  # noqa: S311 - not a secret
            delay *= 2
            self._check_stop()
        raise AssertionError("the last try returns or raises")

    def _begun(self, channel: OpenSshChannel, target: SshTarget, hops: Sequence[SshTarget]) -> OpenSshChannel:
        """Wait until the host has begun the command.

        Raises:
            HostError: it has not, and another try would not help.
            Dropped: it has not, and another try may help.
        """
        log = channel.log
        seconds = (target.connect_timeout or self._options.connect_timeout) * (1 + len(hops)) + _EXTRA_SECONDS
        where = f"{target.hostname} port {target.port}"
        steps: tuple[tuple[Callable[[SshLog], bool], float, str], ...] = (
            (lambda log: log.is_shaken, seconds, f"the SSH handshake with {where} was not over within {seconds:.0f} s"),
            (
                lambda log: log.is_authenticated,
                _LOGIN_TIMEOUT,
                f"the login to {where} was not over within {_LOGIN_TIMEOUT:.0f} s",
            ),
            (lambda log: log.is_begun, _BEGIN_TIMEOUT, f"{where} began no command within {_BEGIN_TIMEOUT:.0f} s"),
        )
        for is_enough, patience, late in steps:
            if not log.wait(is_enough, patience):
                channel.kill()
                self._check_stop()
                raise too_late(self.host, log, late)
            if not is_enough(log):
                break
        else:
            return channel
        channel.kill()
        self._check_stop()
        channel.exit_status(_LAST_WORDS)  # until then, its stderr may not be complete
        error = explain(self.host, target, log, channel.stderr(), [hop.alias for hop in hops])
        if isinstance(error, (HostKeyError, Dropped)):
            # Behind a jump host whose key is wrong, ssh knows only that the way has ended.
            folder = self._private_folder()
            error = ssh_command.shown_key_error(folder, self.host, self._options, target, hops) or error
        raise error

    # -- the process ---------------------------------------------------------------------------------------------------

    def _start(self, argv: Sequence[str], command: str, stands: Callable[[], bool] | None = None) -> OpenSshChannel:
        log = SshLog(self._private_folder() / f"log{next(self._numbers)}")
        address = self._options.address
        try:
            process = subprocess.Popen(
                [*argv, "-o", "LogLevel=DEBUG2", "-E", str(log.path), "--", address, command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env=ssh_command.environment(),
            )
        except OSError as error:
            log.finish()
            raise AgentError(self.host, "connect", f"{argv[0]} cannot be started: {error}") from None
        channel = OpenSshChannel(self.host, process, log, stands)
        self._channels = [one for one in self._channels if not one.is_closed] + [channel]
        if self._stop.is_set():
            channel.kill()
        return channel

    def _private_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="launcher-ssh-"))
        return self._folder

    def _program(self) -> str:
        ssh = ssh_command.program()
        if ssh is None:
            raise HostUnreachable(
                self.host, "connect", "there is no `ssh` program on the PATH here", "install one, or use `--ssh fabric`"
            )
        return ssh

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise ConnectionLost(self.host, "connect", "the transport was closed")
