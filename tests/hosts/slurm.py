"""A throwaway Slurm cluster of several virtual nodes behind an OpenSSH host, which is its login node.

Rule: login node and compute nodes have the namespaces of the OpenSSH host, so nothing of the controller's exists there, an ordinary user is
there who does not exist here, and one signal ends all of it. Their only shared disk is the user's home. All traffic goes over loopback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.requirements import need_programs

__all__ = ["SlurmCluster", "ports_in_a_row", "running_cluster"]

_SCRIPT = Path(__file__).with_name("slurm_up.sh")
_FOLDER = "/run/slurm"
#: Nodes of a cluster if a test does not say it, and at most.
_NODES = 4
_MOST_NODES = 6
#: Ports that a cluster takes: one for accounting, one of slurmctld, and one of each node.
_PORTS = 2 + _MOST_NODES


class SlurmCluster:
    """A cluster that is up. `login` is its login node; `do` has the verbs of `slurm_up.sh`, such as `kill-node`."""

    def __init__(self, login: OpenSshHost, first_port: int, **settings: int | str) -> None:
        need_programs("sbatch", "squeue", "scontrol", "slurmctld", "slurmd", "munged")
        self.login = login
        script = login.path("/run/slurm_up.sh")
        script.write_text(_SCRIPT.read_text())
        values = {"NODES": _NODES, "PORT": first_port + 1, **settings}
        assert int(values["NODES"]) <= _MOST_NODES
        variables = " ".join(f"{name}={value}" for name, value in values.items())
        if settings.get("DBD"):
            # MariaDB does not run as root.
            self._run("id mysql || useradd --system --no-create-home mysql")
        self._run(f"mkdir -p {_FOLDER} && env {variables} bash /run/slurm_up.sh up {_FOLDER}")
        # Slurm's programs look there, so that no login needs a variable.
        self._run(f"mkdir -p /etc/slurm && ln -s {_FOLDER}/slurm.conf /etc/slurm/slurm.conf")

    def do(self, verb: str, *arguments: str) -> None:
        """A verb of the script."""
        self._run(f"bash /run/slurm_up.sh {verb} {_FOLDER} {' '.join(arguments)}")

    def put_program(self, name: str, text: str) -> None:
        """Put a program before the one of that name for logins, such as an `sbatch` that fails."""
        folder = self.login.home / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
        (self.login.home / ".bashrc").write_text("PATH=$HOME/bin:$PATH\n")
        self._run(f"chown -R {self.login.user} /home/{self.login.user}")

    def ask(self, command: str) -> str:
        """What a command of the user prints on the login node."""
        done = self.login.run(f"HOME=/home/{self.login.user} {command}", user=self.login.user)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, command: str) -> None:
        done = self.login.run(command)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running_cluster(folder: Path, **settings: int | str) -> Iterator[SlurmCluster]:
    """A cluster that is up, and gone with all its processes and jobs at the end."""
    with ports_in_a_row() as first_port, running_openssh_host(folder, "login") as login:
        yield SlurmCluster(login, first_port, **settings)


@contextmanager
def ports_in_a_row() -> Iterator[int]:
    """The first of some ports that nobody has. Until it is left, no other cluster of this machine takes them: a name in the kernel is its own, which
    is gone with this process, however that ends.
    """
    start = os.getpid() % 1000
    for place in range(1000):
        first = 20000 + (start + place) % 1000 * _PORTS
        with socket.socket(socket.AF_UNIX) as name:
            try:
                name.bind(f"\0hrl-test-cluster-{first}")
            except OSError:
                continue  # another cluster has them
            if _are_free(range(first, first + _PORTS)):
                yield first
                return
    raise AssertionError("no ports in a row are free")


def _are_free(ports: range) -> bool:
    with ExitStack() as taken:
        try:
            for port in ports:
                taken.enter_context(socket.socket()).bind(("", port))
        except OSError:
            return False
        return True
