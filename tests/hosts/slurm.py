"""A throwaway Slurm cluster of several virtual nodes behind an OpenSSH host, which is its login node.

Rule: login node and compute nodes have the namespaces of the OpenSSH host, so nothing of the controller's exists there, an ordinary user is
there who does not exist here, and one signal ends all of it. Their only shared disk is the user's home. All traffic goes over loopback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.requirements import need_programs

__all__ = ["SlurmCluster", "running_cluster"]

_SCRIPT = Path(__file__).with_name("slurm_up.sh")
_FOLDER = "/run/slurm"
#: Ports that a cluster of so many nodes takes, beginning with the one of slurmctld.
_NODES = 4


class SlurmCluster:
    """A cluster that is up. `login` is its login node; `do` has the verbs of `slurm_up.sh`, such as `kill-node`."""

    def __init__(self, login: OpenSshHost, **settings: int | str) -> None:
        need_programs("sbatch", "squeue", "scontrol", "slurmctld", "slurmd", "munged")
        self.login = login
        script = login.path("/run/slurm_up.sh")
        script.write_text(_SCRIPT.read_text())
        values = {"NODES": _NODES, "PORT": _free_ports(_NODES + 1), **settings}
        variables = " ".join(f"{name}={value}" for name, value in values.items())
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
    with running_openssh_host(folder, "login") as login:
        yield SlurmCluster(login, **settings)


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has now."""
    for first in range(20000 + os.getpid() % 5000, 32000, count):
        taken = []
        try:
            for port in range(first, first + count):
                sock = socket.socket()
                taken.append(sock)
                sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for sock in taken:
                sock.close()
        return first
    raise AssertionError("no ports in a row are free")
