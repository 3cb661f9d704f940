"""A temporary SSH server on loopback, for `launcher demo` and the quick tests. It is asyncssh in a thread.

Rule: it needs no root and changes nothing of the user's. Keys, home, cache and state of its "host" are in a temporary
folder. The folder is removed with the server, and every process that a session started is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from launcher.errors import LauncherError

if TYPE_CHECKING:
    import asyncssh
    from typing_extensions import Self

__all__ = ["DemoServer", "processes_with"]

_MARK = "HYDRA_REMOTE_LAUNCHER_DEMO"
_BUFFER = 1 << 18


class DemoServer:
    """The server as a context manager. Its attributes are valid inside.

    Args:
        alias: the host's name in `ssh_config`.
        environment: more variables for its sessions.
        shell: runs a session's command with `-c`, like a user's login shell.
        key_types: the types of its host keys.

    Attributes:
        host, port, user: where it listens and for whom.
        identity: path of the private key that it accepts.
        known_hosts: path of a file with its host key.
        ssh_config: path of a configuration with all of these, as for `ssh -F`.
        home: HOME of its sessions.
        host_keys: its public host keys, `type base64` each.
        logins: how many times a client has begun to authenticate.
    """

    host = "127.0.0.1"
    user = "demo"

    def __init__(
        self,
        alias: str = "demo",
        *,
        environment: Mapping[str, str] | None = None,
        shell: str = "/bin/sh",
        key_types: Sequence[str] = ("ssh-ed25519",),
    ) -> None:
        self.alias = alias
        self.port = 0
        self.logins = 0
        self._key_types = key_types
        self._environment = dict(environment or {})
        self._shell = shell
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo server", daemon=True)
        self._connections: set[Any] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._server: Any = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        try:
            import asyncssh
        except ImportError:
            raise LauncherError("the demo needs asyncssh: pip install 'hydra-remote-launcher[demo]'") from None
        self._folder = Path(tempfile.mkdtemp(prefix="launcher-demo-"))
        try:
            self._make_keys(self._folder, asyncssh)
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
            self._make_files(self._folder)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _make_keys(self, folder: Path, asyncssh: Any) -> None:
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self._host_keys = [asyncssh.generate_private_key(kind) for kind in self._key_types]
        self.host_keys = [key.export_public_key().decode().strip() for key in self._host_keys]
        key = asyncssh.generate_private_key("ssh-ed25519")
        self.identity = folder / "identity"
        key.write_private_key(str(self.identity))
        self.identity.chmod(0o600)
        self._authorized = folder / "authorized_keys"
        key.write_public_key(str(self._authorized))

    def _make_files(self, folder: Path) -> None:
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text("".join(f"[{self.host}]:{self.port} {key}\n" for key in self.host_keys))
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text(
            f"Host {self.alias}\n  HostName {self.host}\n  Port {self.port}\n  User {self.user}\n"
            f"  IdentityFile {self.identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )

    async def _listen(self) -> None:
        import asyncssh

        server, connections = self, self._connections

        class Server(asyncssh.SSHServer):
            def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
                self._connection = connection
                connections.add(connection)

            def connection_lost(self, error: Exception | None) -> None:
                connections.discard(self._connection)

            def begin_auth(self, username: str) -> bool:
                server.logins += 1
                return True

            def connection_requested(
                self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
            ) -> bool:  # so that it can be a jump host
                return True

        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((self.host, 0))
        self.port = listener.getsockname()[1]
        self._server = await asyncssh.listen(
            sock=listener,
            server_factory=Server,
            server_host_keys=self._host_keys,
            authorized_client_keys=str(self._authorized),
            process_factory=self._session,
            encoding=None,
            agent_forwarding=False,
            compression_algs=["none"],
            tcp_keepalive=True,
            window=8 << 20,
            max_pktsize=1 << 18,
        )

    def _session(self, session: asyncssh.SSHServerProcess[bytes]) -> None:
        """Serve a session in our own task. A task of the connection would be cancelled with it, halfway."""
        task = self._loop.create_task(self._serve(session))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _serve(self, session: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run the session's command as sshd would: in its own session, which goes on after the link is lost."""
        if session.command is None:
            session.stderr.write(b"the demo server runs commands only\n")
            session.exit(1)
            return
        environment = {
            "HOME": str(self.home),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": self._shell,
            "PATH": os.environ.get("PATH", os.defpath),
            _MARK: str(self._folder),
            **self._environment,
        }
        process = subprocess.Popen(  # noqa: ASYNC220 (a fork, on loopback)
            [self._shell, "-c", session.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self.home,
            env=environment,
            start_new_session=True,
        )
        ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._wait, args=(process, ended), name=f"demo {process.pid}", daemon=True).start()
        try:
            # A channel has only one end of file for both streams, which is its close. It comes after both have been
            # read.
            await session.redirect(process.stdin, process.stdout, process.stderr, bufsize=_BUFFER, send_eof=False)
            status = await ended
            if not session.is_closing():
                await asyncio.gather(session.stdout.drain(), session.stderr.drain())
            if status >= 0:
                session.exit(status)
            else:
                session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        finally:
            await session.wait_closed()

    def _wait(self, process: subprocess.Popen[bytes], ended: asyncio.Future[int]) -> None:
        status = process.wait()

        def tell() -> None:
            if not ended.done():
                ended.set_result(status)

        with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(tell)

    def drop_connections(self) -> None:
        """Cut every link at once, like a broken network. Processes of sessions go on."""

        def drop() -> None:
            for connection in list(self._connections):
                connection.abort()

        self._loop.call_soon_threadsafe(drop)

    def stop(self) -> None:
        """Stop the server, end every process that a session has started, and remove its folder. May be called twice."""
        folder, self._folder = self._folder, None
        if folder is None:
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(folder), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        shutil.rmtree(folder, ignore_errors=True)

    async def _close(self, folder: Path) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        # Agents and jobs have left all our process groups, but they still have the mark in their environment. One that is just being started
        # may have none yet, so look again until every session is over.
        while True:
            pids = processes_with(f"{_MARK}={folder}")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not pids and all(session.done() for session in self._sessions):
                break
            await asyncio.sleep(0.01)
        await asyncio.gather(*self._sessions, return_exceptions=True)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def processes_with(text: str) -> list[int]:
    """Return the processes of this user with a text in their environment."""
    if not Path("/proc/self/environ").exists():
        return _processes_by_ps(text)
    wanted = text.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone, or somebody else's
        if wanted in environment:
            found.append(int(entry.name))
    return found


def _processes_by_ps(text: str) -> list[int]:
    """Do the same on macOS, where `ps` has -E for it."""
    said = subprocess.run(
        ["ps", "-A", "-E", "-ww", "-o", "pid=", "-o", "command="],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    ).stdout
    lines = [line for line in said.splitlines() if text.encode() in line]
    pids = [int(line.split(None, 1)[0]) for line in lines]
    return [pid for pid in pids if pid != os.getpid()]
