"""Hosts with a real OpenSSH sshd, on this machine's file system with everything of the controller hidden.

Rule: such a host has mount, pid and UTS namespaces of its own. The project's tree, `/tmp`, `/root` and `/home` of the
controller do not exist there, its user does not exist here, and its `/usr/bin/python3` has no packages. Only the network
and `/usr` are shared. Its disk is the folder it was given; a power cut ends all its processes and leaves the disk.

Slower to make but more honest is `tests.hosts.image`; this one can have any shell, start-up file and sshd setting.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from launcher.hosts.host_spec import HostSpec
from tests.requirements import need_programs, need_root

__all__ = ["OpenSshHost", "running_openssh_host"]

_REPOSITORY = Path(__file__).resolve().parent.parent.parent
_UID = 23001

_UNSHARE = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private")
#: Arguments: the host's folder, its name, its user; then folders to hide. Runs in the new namespaces.
_UP = r"""
set -eu
folder=$1 name=$2 user=$3
shift 3
hostname "$name"
mkdir -p /run/sshd
mount --bind "$folder/system" /etc
mount -t tmpfs -o mode=0755 home /home
mkdir "/home/$user"
mount --bind "$folder/home" "/home/$user"
mount -t tmpfs -o mode=0755 run /run
mkdir /run/sshd /run/host
mount --bind "$folder/etc" /run/host
if [ -d "$folder/python" ]; then mount --bind "$folder/python" /opt; fi
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t proc proc /proc
mount --bind /run/host/boot_id /proc/sys/kernel/random/boot_id
cd /
for hidden in "$@"; do if [ -d "$hidden" ]; then mount -t tmpfs -o mode=0755 hidden "$hidden"; fi; done
mount -t tmpfs -o mode=1777 tmp /tmp
exec env -i PATH=/usr/local/bin:/usr/bin:/bin /usr/sbin/sshd -D -e -f /run/host/sshd_config
"""


class OpenSshHost:
    """One host. `start` boots it, `power_cut` ends it; it may be started again with the disk it had.

    Args:
        folder: its disk, and what its clients need. Kept by the caller.
        shell: the user's login shell.
        settings: further lines of sshd_config, before the others: sshd takes the first.
        key_types: of its host keys.

    Attributes:
        name, user, port: log in as `user@127.0.0.1:port`; `name` is its alias in `ssh_config`.
        home: the user's home folder, as this machine reaches it.
        identity: the private key that may log in.
        known_hosts, ssh_config: files that say all that to an SSH client.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "openssh-host",
        *,
        shell: str = "/bin/bash",
        settings: Sequence[str] = (),
        key_types: Sequence[str] = ("ed25519",),
    ) -> None:
        need_root()
        need_programs("unshare", "nsenter", "sshd", "ssh-keygen", "hostname", shell)
        self.folder = folder
        self.name = name
        self.user = "runner"
        self.uid = _UID
        self._uids = {self.user: _UID}
        self.port = _free_port()
        self.home = folder / "home"
        self.identity = folder / "identity"
        self.known_hosts = folder / "known_hosts"
        self.ssh_config = folder / "ssh_config"
        self.log = folder / "sshd.log"
        self._etc = folder / "etc"
        self._system = folder / "system"
        self._unshare: subprocess.Popen[bytes] | None = None
        for each in (self.home, self._etc):
            each.mkdir(parents=True)
        os.chown(self.home, _UID, _UID)
        self.home.chmod(0o700)
        _keygen("ed25519", self.identity)
        self.host_keys = []
        for kind in key_types:
            path = self._etc / f"ssh_host_{kind}_key"
            _keygen(kind, path)
            self.host_keys.append(path)
        self._write_etc(shell, settings)
        self._write_client()

    def _write_etc(self, shell: str, settings: Sequence[str]) -> None:
        (self._etc / "authorized_keys").write_text(Path(f"{self.identity}.pub").read_text())
        # The whole folder is its own: a mount over a single file goes, in every namespace, when a new file is renamed over the
        # real one, as whoever adds a user to this machine does. A file that goes while it is copied is nothing to us.
        subprocess.run(["cp", "-a", "/etc", str(self._system)], stderr=subprocess.DEVNULL, check=False)
        for file, line in _account(self.user, self.uid, shell).items():
            here = Path("/etc") / file
            (self._system / file).write_text(here.read_text() + line)
            (self._system / file).chmod(0o640 if file == "shadow" else 0o644)
        config = [
            *settings,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey /run/host/{path.name}" for path in self.host_keys),
            "AuthorizedKeysFile /run/host/authorized_keys",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "MaxStartups 100",
            "Subsystem sftp internal-sftp",
        ]
        (self._etc / "sshd_config").write_text("\n".join(config) + "\n")

    def _write_client(self) -> None:
        keys = [Path(f"{path}.pub").read_text().split() for path in self.host_keys]
        self.known_hosts.write_text("".join(f"[127.0.0.1]:{self.port} {kind} {key}\n" for kind, key, *_ in keys))
        self.ssh_config.write_text(
            f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {self.user}\n"
            f"  IdentityFile {self.identity}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        )

    def spec(self, **fields: object) -> HostSpec:
        """The host for the launcher, which may log in as another `user` of it."""
        return HostSpec(self.name, self.name, ssh_config=str(self.ssh_config), **fields)  # type: ignore[arg-type]

    def add_user(self, name: str) -> Path:
        """Another user, who logs in with the same key; the home, as this machine reaches it. The host is up."""
        uid = self._uids[name] = _UID + len(self._uids)
        for file, line in _account(name, uid, "/bin/bash").items():
            with (self._system / file).open("a") as table:
                table.write(line)
        done = self.run(f"install -d -m 0755 -o {uid} -g {uid} /home/{name}")
        assert done.returncode == 0, done.stderr
        return self.path(f"/home/{name}")

    def move_home(self, home: str) -> None:
        """What `passwd` says of the user's home from the next login on; nothing is made there."""
        passwd = self._system / "passwd"
        passwd.write_text(passwd.read_text().replace(f"::/home/{self.user}:", f"::{home}:"))

    def start(self) -> None:
        """Boot it, and wait until it listens."""
        (self._etc / "boot_id").write_text(f"{uuid.uuid4()}\n")
        hidden = [str(_REPOSITORY), "/root", *_outside_usr(sys.prefix), *_outside_usr(sys.base_prefix)]
        up = ["sh", "-c", _UP, "up", str(self.folder), self.name, self.user, *hidden]
        # What it said before it was started again does not count.
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._unshare = subprocess.Popen(
                [*_UNSHARE, *up], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        with self.log.open() as log:
            os.lseek(log.fileno(), said, os.SEEK_SET)
            self._wait_listening(log.fileno())

    def _wait_listening(self, fd: int) -> None:
        assert self._unshare is not None
        said = b""
        while b"Server listening" not in said:
            said += os.read(fd, 4096)
            try:
                self._unshare.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the host did not come up:\n{self.log.read_text()}")

    @property
    def pid(self) -> int:
        """Its process 1 (sshd), as this machine numbers it."""
        assert self._unshare is not None, "the host is not up"
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        assert children, f"the host is down:\n{self.log.read_text()}"
        return int(children[0])

    def power_cut(self) -> None:
        """Every process of it is gone at once; its disk stays. May be called when it is down."""
        if self._unshare is None:
            return
        if self._unshare.poll() is None:
            # The kernel ends a pid namespace with its first process, and unshare returns when all of it is gone.
            os.kill(self.pid, signal.SIGKILL)
        self._unshare.wait()
        self._unshare = None

    stop = power_cut

    def kill_sessions(self) -> int:
        """End every SSH connection to it, and nothing else: what was started goes on. Returns how many."""
        pids = self._session_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def freeze_sessions(self) -> None:
        """Connections stay, but nobody answers on them any more, as with a host that swaps itself to death."""
        for pid in self._session_pids():
            os.kill(pid, signal.SIGSTOP)

    @contextmanager
    def without_login(self) -> Iterator[None]:
        """For as long as this lasts its only key may not log in; sessions that stand live on."""
        keys = self._etc / "authorized_keys"
        known = keys.read_bytes()
        keys.write_bytes(b"")
        try:
            yield
        finally:
            keys.write_bytes(known)

    def rename_for_clients(self, name: str) -> None:
        """Clients find it under this name, which somebody has to resolve, instead of its address."""
        self.ssh_config.write_text(self.ssh_config.read_text().replace("HostName 127.0.0.1", f"HostName {name}"))
        self.known_hosts.write_text(self.known_hosts.read_text().replace("127.0.0.1", name))

    def _session_pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        sessions = [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sshd:")]
        below = [
            int(child)
            for pid in sessions
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sshd:")
        ]
        return sessions + below

    def path(self, absolute: str) -> Path:
        """A file of the host, as this machine reaches it while the host is up."""
        return Path(f"/proc/{self.pid}/root{absolute}")

    def run(self, command: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host without SSH, as its console would; as root where no user is named."""
        uid = self._uids[user] if user else 0
        switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if user else []
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--wd=/", *switch, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def pid_here(self, pid: int) -> int:
        """The number that a process of the host has on this machine."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    numbers = re.search(r"^NSpid:\t(.+)$", (entry / "status").read_text(), re.MULTILINE)
                    is_ours = os.readlink(entry / "ns" / "pid") == os.readlink(f"/proc/{self.pid}/ns/pid")
                except OSError:
                    continue
                if is_ours and numbers is not None and int(numbers[1].split()[-1]) == pid:
                    return int(entry.name)
        raise ProcessLookupError(pid)

    def processes(self) -> list[str]:
        """Command lines of the processes on the host, sshd's own left out."""
        found = []
        for entry in self.path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command and not re.match(r"sshd:|/usr/sbin/sshd", command):
                found.append(command)
        return found


@contextmanager
def running_openssh_host(
    folder: Path,
    name: str = "openssh-host",
    *,
    shell: str = "/bin/bash",
    settings: Sequence[str] = (),
    key_types: Sequence[str] = ("ed25519",),
) -> Iterator[OpenSshHost]:
    """A host that is up, and gone with all its processes at the end."""
    host = OpenSshHost(folder, name, shell=shell, settings=settings, key_types=key_types)
    try:
        host.start()
        yield host
    finally:
        host.power_cut()


def _account(name: str, uid: int, shell: str) -> dict[str, str]:
    """A user's line in each of the host's files."""
    return {
        "passwd": f"{name}:x:{uid}:{uid}::/home/{name}:{shell}\n",
        "shadow": f"{name}:*:19000:0:99999:7:::\n",
        "group": f"{name}:x:{uid}:\n",
    }


def _keygen(kind: str, path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True)


def _outside_usr(prefix: str) -> list[str]:
    """A Python's folder, if the host would not have it by itself."""
    return [] if prefix == "/usr" else [prefix]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
