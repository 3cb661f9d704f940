"""A host as the user described it, as data.

Rule: what the user did not say is None, and the host's own word later. This module is cheap to import, because connections begin with it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from launcher.util.frozen import frozen

__all__ = ["LOCAL", "PYTHON", "HostSpec", "said_size", "said_too_little"]

#: The name of this machine without SSH.
LOCAL = "local"
#: Of the path or name of a Python.
PYTHON = re.compile(r"[A-Za-z0-9_./~+][A-Za-z0-9 _.,/+@%=:~-]*")


@frozen
class HostSpec:
    """One host as the user described it.

    Attributes:
        name: what the user calls it, in messages and results; unique within a run.
        address: host name, IP address or alias of ~/.ssh/config; `local` for no SSH at all.
        user, port: None leaves them to ssh's configuration.
        slots: jobs at once: a number, `auto` (the CPUs), or None (one per GPU, else one).
        gpus: how many GPUs to use, or their indices or UUIDs, or `free` for those that no other program uses; None for all.
        python: the job environment's Python there; None for the first python3.
        environment: the packages of its jobs, like the option of that name; None for the option's value.
        extras: extras of its environment, in addition to those of the options.
        setup: shell lines run before that Python, such as `module load cuda`.
        env: variables for its jobs. They may be secrets, so they are not in `repr`.
        workdir: folder there for cache and state, instead of the user's.
        fingerprint: the host key's, `SHA256:...`; overrides known_hosts.
        identity: path of the only private key to offer.
        known_hosts: path of the only known_hosts file to trust.
        ssh_config: path of the ssh configuration to read, as `ssh -F`.
        host_keys: `strict`, or `accept-new` to add an unknown key to known_hosts.
        downloads: whether it may fetch packages from its own internet, or the beginnings of the addresses that it may ask; None for what
            the options say.
        ssh: what logs in: `fabric`, `openssh` (the `ssh` program) or `auto`; None for what the options say.
        slurm: what each allocation has, if it is the login node of a Slurm cluster whose nodes run the jobs; None if it runs jobs itself.
        cpus, memory: how many CPUs, and bytes of memory, jobs may have there if the options say what a job needs; None for what the
            host finds.
    """

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    slots: int | Literal["auto"] | None = None
    gpus: int | Literal["free"] | tuple[int | str, ...] | None = None
    python: str | None = None
    setup: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    workdir: str | None = None
    fingerprint: str | None = None
    identity: str | None = None
    known_hosts: str | None = None
    ssh_config: str | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    environment: str | None = None
    extras: tuple[str, ...] = ()
    ssh: Literal["auto", "fabric", "openssh"] | None = None
    cpus: int | None = None
    memory: int | None = None
    downloads: bool | tuple[str, ...] | None = None
    slurm: Mapping[str, Any] | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is this machine without SSH."""
        return self.address == LOCAL

    @property
    def python_at_hand(self) -> str | None:
        """The Python to try first there: the one that the host names, or else, on this machine, our own."""
        here = sys.executable if self.is_local and PYTHON.fullmatch(sys.executable or "") else None
        return self.python or here


def said_size(spec: HostSpec) -> dict[str, int | None]:
    """Return how much the user says that a host has. None: what the host finds is its own word, later."""
    # How many are free is the host's own word.
    gpus = None if spec.gpus == "free" else len(spec.gpus) if isinstance(spec.gpus, tuple) else spec.gpus
    return {"gpus": gpus, "cpus": spec.cpus, "memory": spec.memory}


def said_too_little(spec: HostSpec, needs: Mapping[str, int]) -> str:
    """Return what the user says that a host has, where that is too little for a job; empty if it may be enough."""
    if spec.slurm is not None:
        return ""  # Slurm knows what its nodes have
    of_cluster = [name for name in ("nodes", "tasks", "time") if needs.get(name)]
    if of_cluster:
        return f"no `{of_cluster[0]}` to give, because it is no Slurm cluster"
    has = said_size(spec)
    lacks = [name for name, need in needs.items() if (there := has.get(name)) is not None and need > there]
    return f"{lacks[0]}={has[lacks[0]]}" if lacks else ""
