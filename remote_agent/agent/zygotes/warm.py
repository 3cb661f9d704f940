"""The agent's end of warm interpreters: takes the one that fits its zygote, and leaves one for the next run.

Rule: one that does not fit, does not answer in time or is not certainly ours is not taken, and the zygote starts cold. A run has none if it has
secrets for its jobs (`env`), set-up lines, or a scheduler's allocation; and leaves none if it was interrupted.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from typing import Dict, List, Optional

from remote_agent.agent.zygotes.spare import (
    PATIENCE,
    Spare,
    chosen_python,
    start_process,
    zygote_command,
)
from remote_agent.protocol import wire
from remote_agent.protocol.constants import WARM
from remote_agent.protocol.specs.warm import WarmSpec
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.descriptors import send_with_fds
from remote_agent.system.private_files import SpoolError, open_private
from remote_agent.system.processes import OtherProcess, birth
from remote_agent.system.waiting.inherited import FREE_MEMORY, free_memory, inherited, split_variables
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore, peer_of

__all__ = ["NO_WARM", "SUBMITTERS", "WarmInterpreters", "key_of", "why_none"]

#: A host where this variable is set has none.
NO_WARM = "HYDRA_REMOTE_LAUNCHER_NO_WARM"
#: Variables of batch systems, and the programs by which their login nodes are known.
_ALLOCATION = ("SLURM_", "PBS_", "LSB_", "SGE_", "FLUX_", "COBALT_")
SUBMITTERS = ("sbatch", "qsub", "bsub", "flux")
#: Seconds for a warm interpreter to answer.
_ANSWER = 3.0


def why_none(environment: Dict[str, str]) -> str:
    """Return why this host has no warm interpreters; empty if it may have some."""
    if not hasattr(socket, "SO_PEERCRED"):
        return "this is not Linux"
    if environment.get(NO_WARM):
        return "{} is set".format(NO_WARM)
    if any(name.startswith(_ALLOCATION) for name in environment):
        return "this is a batch system's allocation"
    if environment.get("KRB5CCNAME", "").startswith("KEYRING:"):
        return "the login's tickets are in its own keyring"
    for program in SUBMITTERS:
        if shutil.which(program, path=environment.get("PATH")):
            return "this is a batch system's machine: it has {}".format(program)
    return ""


def why_none_now(environment: Dict[str, str]) -> str:
    """Return why nothing would be left for the next run if one ended now; empty if something would."""
    free = free_memory()
    low = "{:.0%} of the memory is free, and at least {:.0%} must be".format(free, FREE_MEMORY)
    return why_none(environment) or (low if free < FREE_MEMORY else "")


def _may(spec: ZygoteSpec, environment: Dict[str, str]) -> bool:
    is_plain = not spec.setup and not spec.environ and spec.isolation != "spawn"
    return spec.warm > 0 and is_plain and not why_none(environment)


def key_of(spec: ZygoteSpec, bundle: str, environment: Dict[str, str]) -> str:
    """Return the hash of all that makes a zygote of this spec what it is before it imports the application."""
    python = chosen_python(spec.python)
    found = shutil.which(python, path=environment.get("PATH")) or python
    status = os.stat(found)
    controller = spec.controller._replace(by_value=False, values=[])
    facts = [
        [1, bundle, found, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns],
        [spec.umask, spec.isolation, spec.main_module, spec.main_is_module, spec.argv[:1], spec.argv0_is_absolute],
        [spec.sys_path, controller.to_json(), sorted(split_variables(environment)[0].items()), inherited()],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8")).hexdigest()


class WarmInterpreters:
    """Those of one agent's host."""

    def __init__(self, cache: str, bundle: str) -> None:
        self._store = WarmStore(cache)
        self._bundle = bundle
        self._has_tried = False
        #: What was left for later runs. It outlives this process, so nobody here waits for its end.
        self.left: List["subprocess.Popen[bytes]"] = []

    # -- taking one ----------------------------------------------------------------------------------------------

    def adopt(self, spec: ZygoteSpec, environment: Dict[str, str], log_path: str) -> Optional[Spare]:
        """Return the one that fits a zygote of this spec, if there is one. An agent tries once: a zygote that is started again starts cold."""
        if self._has_tried or not _may(spec, environment):
            return None
        self._has_tried = True
        try:
            key = key_of(spec, self._bundle, environment)
            # The last one knows best what the application imports.
            for record in reversed(self._store.records()):
                if record.name.startswith(key[:32]) and self._store.is_waiting(record):
                    return self._ask(record, key, environment, log_path)
        except (OSError, SpoolError):
            pass  # it starts cold, and says itself what is wrong with its Python or the disk
        return None

    def _ask(self, record: WarmRecord, key: str, environment: Dict[str, str], log_path: str) -> Optional[Spare]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_ANSWER)
        try:
            self._connect(sock, record)
            _hand_over(sock, key, split_variables(environment)[1], log_path)
        except (OSError, ValueError, wire.ProtocolError):
            sock.close()
            # It has ended, or is to end: it cannot serve anybody else.
            self._store.end(record)
            return None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.settimeout(PATIENCE)
        return Spare(record.python, log_path, OtherProcess(record.pid, record.started), sock)

    def _connect(self, sock: socket.socket, record: WarmRecord) -> None:
        folder = os.open(self._store.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By the folder's descriptor, because the path of a long home is too long for AF_UNIX.
            sock.connect("/proc/self/fd/{}/{}.sock".format(folder, record.name))
        finally:
            os.close(folder)
        if peer_of(sock) != (record.pid, os.geteuid()):
            raise ValueError("another process listens there")

    # -- leaving one ---------------------------------------------------------------------------------------------

    def leave(self, spec: ZygoteSpec, environment: Dict[str, str], modules: List[str], imported: List[str]) -> None:
        """Start one for the next run."""
        if not _may(spec, environment) or free_memory() < FREE_MEMORY:
            return
        try:
            self._store.make()
            self._store.sweep()
            key = key_of(spec, self._bundle, environment)
            self._start(key, spec, split_variables(environment)[0], modules, imported)
        except (OSError, SpoolError):
            return  # nothing is lost: the next run starts cold

    def _start(
        self, key: str, spec: ZygoteSpec, environment: Dict[str, str], modules: List[str], imported: List[str]
    ) -> None:
        name = "{}-{}".format(key[:32], os.urandom(4).hex())
        python = chosen_python(spec.python)
        process, sock = start_process(
            self._store.path(name, ".log"), lambda fd: zygote_command(python, fd, self._bundle, WARM), environment
        )
        told = WarmSpec(
            key=key,
            name=name,
            folder=self._store.folder,
            idle=spec.warm,
            umask=spec.umask,
            controller=spec.controller,
            script=(spec.argv or [""])[0],
            modules=modules,
            imported=imported,
        )
        has_packages = bool(modules or spec.controller.hydra)
        record = WarmRecord(
            name, process.pid, birth(process.pid), spec.main_module or "", python, time.time(), spec.warm, has_packages
        )
        try:
            self._store.write(record)
            sock.sendall(wire.encode({"t": "warm"}, json.dumps(told.to_json()).encode("utf-8")))
        except BaseException:
            process.kill()
            process.wait()
            self._store.remove(name)
            raise
        finally:
            sock.close()
        self.left.append(process)

    def end_all(self) -> None:
        """End all on this host that agents have left, because the user has stopped a run."""
        for record in self._store.records():
            if not record.is_command:
                self._store.end(record)


def _hand_over(sock: socket.socket, key: str, variables: Dict[str, str], log_path: str) -> None:
    """Ask a warm interpreter to become a zygote's process.

    Raises:
        OSError: it is gone, or does not answer in time.
        ValueError: it does not fit.
    """
    log = open_private(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        send_with_fds(sock, wire.encode({"t": "adopt", "key": key, "variables": variables}), [log])
    finally:
        os.close(log)
    decoder = wire.Decoder()
    deadline = time.monotonic() + _ANSWER
    while True:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        data = sock.recv(1 << 12)
        frames = decoder.feed(data)
        if frames and frames[0].header["t"] == "adopted":
            return
        if frames or not data:
            raise ValueError("it does not fit")
