"""The environments on this host: the content, size and users of each, and removing one.

Rule: nothing here builds or uses an environment. If a job may still run in one, it is never removed, even if that run has just begun.
"""

import os
import re
import shutil
from typing import Any, Callable, Dict, List, Optional

from remote_agent.agent.environments.store.store import EnvironmentStore, read_description
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.shared.disk import Usage, remove_tree, usage_of

__all__ = ["EnvironmentInventory"]

_PART = ".part."
#: How many packages a reason names.
_MAX_NAMED = 10


class EnvironmentInventory:
    """The environments below one cache folder.

    Args:
        boot: the id of this boot of the machine.
        may_run: takes a run's id and the host's name in it. Returns whether something of the run may still run.
    """

    def __init__(self, cache: str, boot: str, may_run: Callable[[str, str], bool]) -> None:
        self._store = EnvironmentStore(cache, boot)
        self._folder = self._store.folder
        self._may_run = may_run

    def complete(self) -> List[str]:
        """Return the keys of complete environments."""
        return [name for name in self._names() if is_sha256(name)]

    def given_up(self) -> List[str]:
        """Return the folders of environments that were begun and that nobody builds any more."""
        return [name for name in self._names() if name.startswith(_PART) and not self._is_building(name)]

    def usage(self, name: str) -> Usage:
        """Return the disk usage of an environment, or of one that was given up.

        Raises:
            OSError: it was just removed.
        """
        return usage_of(os.path.join(self._folder, name))

    def last_use(self, key: str) -> float:
        """Return when a run last began to use it, or when it was built.

        Raises:
            OSError: it was just removed.
        """
        times = [os.lstat(self._store.path(key)).st_mtime]
        for name in self._use_files(key):
            try:
                times.append(os.lstat(os.path.join(self._uses(key), name)).st_mtime)
            except OSError:
                continue  # it was just removed
        return max(times)

    def users(self, key: str) -> List[str]:
        """Return the runs of which something may still run in an environment."""
        found = set()
        for name in self._use_files(key):
            run, _, host = name.partition(".")
            if self._may_run(run, host):
                found.add(run)
        return sorted(found)

    def why_python_stays(self, python: str) -> str:
        """Return why a Python that uv has fetched is needed; empty if no environment is made from it, or may be soon."""
        if any(name.startswith(_PART) and self._is_building(name) for name in self._names()):
            return "an environment is being built"
        for key in self.complete():
            said = read_description(self._store.path(key))
            if said is not None and EnvironmentSpec.from_json(said["spec"]).python == python:
                return "environment {} is made from it".format(key[:12])
        return ""

    def items(self) -> List[Dict[str, Any]]:
        """List all environments, even those that are not complete.

        Each item has `key` (its beginning, if it is not complete), `state` (ready, damaged, building, given up, on nodes), `why`
        (if it is damaged), `nodes` (the folder on their own disks in which nodes build it; only its files are here), `bytes` (its own) and `shared` (those that others have, too), `built` and
        `used` (seconds since the epoch), `users` (runs), `python`, `lock` and `packages` ([name, version]).
        """
        found = []
        for key in self.complete():
            try:
                found.append(self._item(key))
            except OSError:
                continue  # it was just removed
        for name in self._names():
            if name.startswith(_PART):
                try:
                    found.append(self._part(name))
                except OSError:
                    continue  # by now it is complete, or gone
        return found

    def remove(self, key: str) -> str:
        """Remove an environment. Returns why it was kept; empty if it was removed."""
        users = self.users(key)
        if users:
            return _used_by(users)
        # Rename it first, so that others find either a complete environment or none.
        aside = os.path.join(self._folder, "{}{}.{}".format(_PART, key[:16], os.urandom(6).hex()))
        try:
            os.rename(self._store.path(key), aside)
        except OSError as error:
            return "{}: {}".format(key, error.strerror)
        # An agent first records its use and then looks for the environment. A use that is not recorded yet will not find it.
        users = self.users(key)
        if users:
            try:
                os.rename(aside, self._store.path(key))
            except OSError:
                pass  # it was already built again
            else:
                return _used_by(users)
        else:
            shutil.rmtree(self._uses(key), ignore_errors=True)
        return _remove(aside)

    def remove_given_up(self, name: str) -> str:
        """Remove an incomplete environment. Returns why it was kept; empty if it was removed."""
        if name not in self.given_up():
            return "it is being built, or is gone"
        return _remove(os.path.join(self._folder, name))

    # -- one environment -------------------------------------------------------------------------------------------

    def _item(self, key: str) -> Dict[str, Any]:
        path = self._store.path(key)
        usage = self.usage(key)
        said = read_description(path)
        spec = EnvironmentSpec.from_json(said["spec"]) if said is not None else None
        nodes = str(said.get("nodes") or "") if said is not None else ""
        why = "" if nodes else self._damage(key, path, spec)
        built = said.get("built") if said is not None else None
        return {
            "key": key,
            "state": "on nodes" if nodes else "damaged" if why else "ready",
            "why": why,
            "nodes": nodes,
            "bytes": usage.bytes - usage.shared,
            "shared": usage.shared,
            "built": built if isinstance(built, (int, float)) else os.lstat(path).st_mtime,
            "used": self.last_use(key),
            "users": self.users(key),
            "python": spec.python if spec is not None else "",
            "lock": spec.lock if spec is not None else "",
            "packages": [[one.name, one.version] for one in spec.files] if spec is not None else [],
        }

    def _part(self, name: str) -> Dict[str, Any]:
        path = os.path.join(self._folder, name)
        usage = usage_of(path)
        return {
            "key": _begin(name),
            "state": "building" if self._is_building(name) else "given up",
            "why": "",
            "bytes": usage.bytes - usage.shared,
            "shared": usage.shared,
            "built": usage.changed,
            "used": usage.changed,
            "users": [],
            "python": "",
            "lock": "",
            "packages": [],
        }

    def _is_building(self, part: str) -> bool:
        locks = [name for name in self._names(folders=False) if name.startswith(".lock." + _begin(part))]
        return any(self._store.is_being_built(name[len(".lock.") :]) for name in locks)

    def _damage(self, key: str, path: str, spec: Optional[EnvironmentSpec]) -> str:
        """Return why an environment cannot be used; empty if it can be."""
        if spec is None:
            return "its description is missing or damaged"
        if not os.path.exists(os.path.join(path, "bin", "python")):
            return "its Python, {}, is gone".format(spec.python)
        if self._store.is_doubtful(key):
            return "the machine restarted before it was on the disk"
        there = _installed(path)
        lost = [one.name for one in spec.files if _canonical(one.name) not in there]
        if lost:
            more = " and {} more".format(len(lost) - _MAX_NAMED) if len(lost) > _MAX_NAMED else ""
            return "packages are gone: {}{}".format(", ".join(lost[:_MAX_NAMED]), more)
        return ""

    # -- files -----------------------------------------------------------------------------------------------------

    def _names(self, *, folders: bool = True) -> List[str]:
        try:
            return sorted(
                entry.name for entry in os.scandir(self._folder) if entry.is_dir(follow_symlinks=False) == folders
            )
        except OSError:
            return []

    def _uses(self, key: str) -> str:
        return os.path.join(self._folder, ".use", key)

    def _use_files(self, key: str) -> List[str]:
        try:
            return os.listdir(self._uses(key))
        except OSError:
            return []


def _begin(part: str) -> str:
    """Return the beginning of the key from the name of a build's folder."""
    return part[len(_PART) :].partition(".")[0]


def _remove(path: str) -> str:
    try:
        remove_tree(path)
    except OSError as error:
        return "{}: {}".format(error.filename, error.strerror)
    return ""


def _used_by(users: List[str]) -> str:
    return "jobs of run {} may still run in it".format(users[0])


def _installed(path: str) -> List[str]:
    """Return the canonical names of the distributions in an environment."""
    lib = os.path.join(path, "lib")
    sites = [os.path.join(lib, python, "site-packages") for python in (os.listdir(lib) if os.path.isdir(lib) else [])]
    names = [name for site in sites if os.path.isdir(site) for name in os.listdir(site)]
    return [_canonical(name.partition("-")[0]) for name in names if name.endswith(".dist-info")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
