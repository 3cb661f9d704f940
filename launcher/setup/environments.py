"""The packages of a run: the lock of each host that gets an environment, and the source of its plan.

Rule: locks are read when the setup is made, and stored with the run. A resumed run has the same locks, even if the files have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.environments.local_folders import local_folders
from launcher.environments.lock import Lock, read_lock, write_whole
from launcher.environments.source import find_auto, find_source
from launcher.environments.uv import Steps, uv_program
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder
from remote_agent.protocol.fields import is_sha256

if TYPE_CHECKING:
    from launcher.code.files.snapshot import Snapshot
    from launcher.environments.plan import EnvironmentSource
    from launcher.hosts.host_spec import HostSpec
    from launcher.options import LaunchConf
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["LOCKS", "LastKey", "locks_of", "roots_of", "source_of", "way_to_have"]

#: A folder next to a run's journal, with what was resolved for its hosts.
LOCKS = "locks"


def locks_of(
    hosts: Iterable[HostSpec], options: LaunchConf, start: Path | None, script: Path | None, *, may_build: bool = True
) -> dict[str, Lock]:
    """Return host name -> lock, for each host that gets an environment.

    Args:
        start: the file or folder of the application.
        script: the script that is started.
        may_build: whether build code of a project may run here.

    Raises:
        PackagesError: a source cannot be used, or uv is missing here.
    """
    made: dict[tuple[str, tuple[str, ...]], Lock | None] = {}
    locks = {}
    steps = Steps(options.environment_timeout, may_build=may_build)
    for spec in hosts:
        word = spec.environment or options.environment
        if word is None:
            continue
        extras = tuple(dict.fromkeys([*options.extras, *spec.extras]))
        if (word, extras) not in made:
            source = find_source(word, start, script)
            made[word, extras] = None if source is None else read_lock(source, extras, options.groups, steps)
        lock = made[word, extras]
        if lock is not None:
            locks[spec.name] = lock
    if locks:
        uv_program()
    elif (options.extras or options.groups) and not any(made):
        raise PackagesError("extras and groups belong to an environment: choose one with `environment`, such as `auto`")
    return locks


def roots_of(lock: Lock, is_sent: bool, snapshot: Snapshot | None) -> list[str]:
    """Return the folders for `sys.path` of the local packages that a lock names. In code that is sent, they are relative to it.

    Raises:
        PackagesError: the modules of one do not come with the code, or need to be built.
    """
    roots = []
    for folder in local_folders(lock):
        root = folder.source_root()
        if not is_sent:
            roots.append(str(root))
        elif snapshot is not None and snapshot.has_folder(root):
            roots.append(snapshot.relative(root))
        elif not folder.is_project:
            raise folder.not_sent(snapshot.root if snapshot is not None else None)
    return roots


class LastKey:
    """The environment that a host had for a lock last. It is a guess for the next run, which looks whether it is still right."""

    def __init__(self, lock: Lock, spec: HostSpec, options: LaunchConf) -> None:
        host = [
            spec.name,
            spec.address,
            spec.user,
            spec.port,
            spec.workdir or options.workdir,
            spec.python or options.python,
        ]
        name = hashlib.sha256(json.dumps([lock.sha256, *host]).encode()).hexdigest()
        self._file = cache_folder() / "environments" / f"{name}.key"

    def read(self) -> str | None:
        """Return its key; None if there was none."""
        try:
            key = self._file.read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return key if is_sha256(key) else None

    def write(self, key: str) -> None:
        """Keep it for the next run."""
        if key != self.read():
            write_whole(self._file, key.encode())


def way_to_have(setup: RunSetup, lock: Lock | None) -> str:
    """Return how a package that a job lacks can be sent. The error says this before other ways."""
    if lock is not None:
        return f"{lock.name} does not have it: add it to the project (`uv add NAME`, then `uv lock`), or "
    found = find_auto(setup.root, setup.script_file()) if setup.root is not None else None
    if found is None:
        return "bring it along with `--environment FILE`, where FILE is a uv.lock, pylock.toml or requirements.txt that has it; or "
    name = os.path.relpath(found.path)
    command = setup.command_line()
    if command and os.path.basename(command[0]) == "launcher" and command[1:2] in (["run"], ["multirun"]):
        line = shlex.join(["launcher", command[1], "--environment", "auto", *command[2:]])
    else:
        line = "--environment auto, hydra.launcher.environment=auto, or environment='auto' in Python"
    return f"bring the packages of {name} along ({line}); or "


def source_of(
    lock: Lock,
    folder: Path | None,
    options: LaunchConf,
    *,
    earlier: Path | None = None,
    prefers: Sequence[int] = (),
    is_exact: bool = False,
    may_build: bool = True,
) -> EnvironmentSource:
    """Return what says what a host installs.

    Args:
        folder: the folder of the run's journal; None for a run that keeps nothing.
        earlier: that of an earlier run which is repeated. What was resolved then counts.
        prefers: major and minor version of the Python that is preferred; by default that of this Python.
        is_exact: nothing but what was resolved then counts.
        may_build: whether build code of a project may run here.
    """
    # 4 ms, which pass here while a host is connected.
    from launcher.environments.plan import EnvironmentSource

    kept, before = (one / LOCKS if one is not None else None for one in (folder, earlier))
    return EnvironmentSource(
        lock,
        prefers or sys.version_info[:2],
        kept,
        options.environment_timeout,
        earlier=before,
        is_exact=is_exact,
        may_build=may_build,
    )
