"""An OpenSSH host on loopback for the benchmarks: this machine and this user, with its own keys and folders.

Rule: whatever it starts and writes is gone when the context ends. It isolates nothing. The tests have isolated hosts.
"""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

_STARTS_WITHIN_SECONDS = 20


@dataclass(frozen=True)
class Loopback:
    """A running sshd: where it listens, who may log in with which key, and an `ssh_config` with all that.

    `folder` is removed when the host stops. Benchmarks use `workdir` inside it as the host's workdir.
    """

    folder: Path
    port: int
    user: str
    identity: Path
    ssh_config: Path
    python: str
    pid: int = 0

    @property
    def workdir(self) -> Path:
        """The host's cache and state are here, and not in the user's own folders."""
        return self.folder / "workdir"

    @property
    def environ(self) -> dict[str, str]:
        """An environment whose `ssh` reads `ssh_config`, for every side."""
        return {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def alias(self, name: str, port: int) -> str:
        """Make `name` mean this host through a proxy at `port`."""
        text = self.ssh_config.read_text()
        self.ssh_config.write_text(f"Host {name}\n  Port {port}\n{text}")
        return name


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_sshd(**variables: str) -> Iterator[Loopback]:
    """Start sshd on 127.0.0.1, whose sessions have these variables. At the end, stop it and every remaining session."""
    sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if sshd is None:
        raise SystemExit("benchmarks: no sshd found: install OpenSSH's server")
    folder = Path(tempfile.mkdtemp(prefix="launcher-benchmarks-"))
    try:
        host = _write_config(folder, variables)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (folder / "sshd.log").open("wb") as log:
            server = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
            try:
                _wait_listening(host.port, server, folder / "sshd.log")
                yield replace(host, pid=server.pid)
            finally:
                server.terminate()
                server.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_config(folder: Path, variables: Mapping[str, str]) -> Loopback:
    port, user = free_port(), getpass.getuser()
    identity, host_key = folder / "identity", folder / "host_key"
    for key in (identity, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "benchmarks", "-f", str(key)], check=True)
    shutil.copy(f"{identity}.pub", folder / "authorized_keys")
    server = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": host_key,
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": folder / "sshd.pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxStartups": "100",
        "Subsystem": "sftp internal-sftp",
        # An empty home, so that this account's profile affects no side.
        "SetEnv": " ".join(f"{name}={value}" for name, value in {"HOME": f"{folder}/home", **variables}.items()),
    }
    (folder / "home").mkdir()
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server.items()))
    kind, key = Path(f"{host_key}.pub").read_text().split()[:2]
    known_hosts = folder / "known_hosts"
    # Every port, so that a proxy in front of the host counts as the same host.
    known_hosts.write_text(f"launcher-benchmark {kind} {key}\n")
    client = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": user,
        "IdentityFile": identity,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": "launcher-benchmark",
        "StrictHostKeyChecking": "yes",
    }
    ssh_config = folder / "ssh_config"
    ssh_config.write_text("Host *\n" + "".join(f"  {name} {value}\n" for name, value in client.items()))
    wrapper = folder / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {ssh_config} "$@"\n')
    wrapper.chmod(0o755)
    return Loopback(folder, port, user, identity, ssh_config, "/usr/bin/python3")


def _wait_listening(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"benchmarks: sshd did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
