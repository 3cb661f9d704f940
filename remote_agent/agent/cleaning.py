"""Lists and removes what runs have left on this host: spools of runs, bundles of agents, cached code, environments, warm interpreters.

Rule: a list with sizes comes first, and only items of that list are removed. An item stays if a running agent may need it, or if it
holds results that no controller has collected (unless `force` is given).

    survey -> surveyed                           payload: JSON list of items
    remove -> removed                            payload: JSON {"removed": [id], "kept": [[id, why]]}
    list_environments -> environments_listed     payload: JSON list, see `remote_agent.agent.environments.store.inventory`
    ask_pythons -> pythons                       payload: HostFacts
    compare_environment -> environment_compared  payload: EnvironmentSpec, and JSON, see `remote_agent.agent.environments.comparison`
    list_gpus -> gpus_listed                     payload: JSON list, see `remote_agent.agent.resources.gpu_listing`
    list_use -> use_listed                       payload: JSON object, see `remote_agent.agent.use_listing`
"""

import json
import os
import shutil
from typing import Any, Callable, Dict, Iterator, List, Literal, Optional, Tuple

from remote_agent.agent.answering import answer_on_stdin
from remote_agent.agent.environments.comparison import compare
from remote_agent.agent.environments.fetched_pythons import FetchedPythons
from remote_agent.agent.environments.pythons import host_facts
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.resources.gpu_listing import list_gpus
from remote_agent.agent.spool.code.code_tree import trees_folder
from remote_agent.agent.spool.other_runs import count_attempts, is_running, may_run
from remote_agent.agent.use_listing import ClusterStates, UseListing
from remote_agent.protocol import wire
from remote_agent.protocol.messages import GpusListed
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.shared.disk import remove_tree, usage_of
from remote_agent.system.gpu_lease import covers_host
from remote_agent.system.host import boot_id, roots, runtime_folder_of
from remote_agent.system.private_files import make_private_folder
from remote_agent.system.processes import memory_of
from remote_agent.system.waiting.warm_store import WarmStore

__all__ = ["Cleaning", "serve_cleaning"]

#: Items in one answer; environments, each of which may name hundreds of packages; and GPUs, each of which may name a hundred processes.
_PART = 2000
_ENVIRONMENTS = 10
_GPUS = 20


class Cleaning:
    """The folders of all runs of this user on this host. `cluster_states`: see `UseListing`."""

    def __init__(self, workdir: Optional[str], cluster_states: ClusterStates = lambda run, host, spool: {}) -> None:
        self._cache, self._state = roots(workdir)
        self._pythons = FetchedPythons(self._cache)
        self._warm = WarmStore(self._cache)
        self._use = UseListing(cluster_states)
        self._environments = EnvironmentInventory(
            self._cache, boot_id(), lambda run, host: may_run(self._path(run, host))
        )

    # -- listing -------------------------------------------------------------------------------------------------

    def items(self) -> List[Dict[str, Any]]:
        """List everything.

        Each item has `id`, `kind` (spool, bundle, code, environment, packages, python, warm), `bytes`, `files` and `changed` (seconds
        since the epoch). A spool also has `run`, `is_running`, and its numbers of `uncollected` and `unfinished`
        attempts. `bytes` of an environment are those that it has alone, `shared` those that others have too. Its
        `changed` is its last use. `bytes` of a warm interpreter are its memory; it has the `application` that it was made for.
        """
        found = [self._spool(run, host) for run, host in self._spools()]
        bundles = os.path.join(self._cache, "agents")
        found += [
            dict(_usage_of(os.path.join(bundles, name)), id="bundle/" + name, kind="bundle")
            for name in _subfolders(bundles)
        ]
        made = os.path.join(self._cache, "bundles")
        if os.path.isdir(made):
            # A controller's copies of the bundles that it sends. It makes missing ones again.
            found.append(dict(_usage_of(made), id="bundles", kind="bundle"))
        found += self._sum("code", self._code())
        found += [self._environment(key) for key in self._environments.complete()]
        found += [
            dict(self._usage(name), id="part/" + name, kind="environment") for name in self._environments.given_up()
        ]
        # After the environments: those that are removed with the same request need their Python no more.
        found += [
            dict(_usage_of(os.path.join(self._pythons.folder, name)), id="python/" + name, kind="python")
            for name in self._pythons.names()
        ]
        return found + self._sum("packages", self._packages()) + self._waiting()

    def _waiting(self) -> List[Dict[str, Any]]:
        self._warm.sweep()
        return [
            {
                "id": "warm/" + record.name,
                "kind": "warm",
                "application": record.application,
                "bytes": memory_of(record.pid),
                "files": 0,
                "changed": record.since,
            }
            for record in self._warm.records()
        ]

    def environments(self) -> List[Dict[str, Any]]:
        """List the environments, with all that is known of each."""
        return self._environments.items()

    def use(self) -> Dict[str, Any]:
        """Say what runs here now."""
        return self._use.list_use((self._path(run, host), run, host) for run, host in self._spools())

    def facts(self, python: Optional[str]) -> Dict[str, Any]:
        """Say what wheels for this host depend on. `python`: the only Python that counts."""
        make_private_folder(self._cache)
        return host_facts(self._cache, python).to_json()

    def compare(self, spec: Any) -> Dict[str, Any]:
        """Say what of an environment is here."""
        make_private_folder(self._cache)
        return compare(self._cache, boot_id(), EnvironmentSpec.from_json(spec))

    def _spools(self) -> Iterator[Tuple[str, str]]:
        runs = os.path.join(self._state, "runs")
        for run in _subfolders(runs):
            for host in _subfolders(os.path.join(runs, run)):
                yield run, host

    @staticmethod
    def _sum(item: str, folders: List[str]) -> List[Dict[str, Any]]:
        """Return these folders as one item, if there is anything in them."""
        parts = [_usage_of(path) for path in folders if os.path.isdir(path)]
        if not any(one["files"] for one in parts):
            return []
        total = {name: sum(one[name] for one in parts) for name in ("bytes", "files")}
        return [dict(total, changed=max(one["changed"] for one in parts), id=item, kind=item)]

    def _code(self) -> List[str]:
        return [os.path.join(self._cache, "blobs"), trees_folder(self._cache)]

    def _packages(self) -> List[str]:
        """What environments are made from; and what a controller here has fetched for hosts, and fetches again."""
        names = ("wheels", "uv", "uv-bin", "packages", "locks", "environments")
        return [os.path.join(self._cache, name) for name in names]

    def _environment(self, key: str) -> Dict[str, Any]:
        known = self._environments
        about = {"id": "environment/" + key, "kind": "environment", "users": known.users(key)}
        return dict(self._usage(key), changed=known.last_use(key), **about)

    def _usage(self, name: str) -> Dict[str, Any]:
        """Of an environment, or of one that was given up."""
        usage = self._environments.usage(name)
        own = usage.bytes - usage.shared
        return {"bytes": own, "shared": usage.shared, "files": usage.files, "changed": usage.changed}

    def _path(self, run: str, host: str) -> str:
        return os.path.join(self._state, "runs", run, host)

    def _spool(self, run: str, host: str) -> Dict[str, Any]:
        path = self._path(run, host)
        uncollected, unfinished = count_attempts(os.path.join(path, "log"))
        return dict(
            _usage_of(path),
            id="spool/{}/{}".format(run, host),
            kind="spool",
            run=run,
            is_running=is_running(path),
            uncollected=uncollected,
            unfinished=unfinished,
        )

    # -- removing ------------------------------------------------------------------------------------------------

    def remove(self, ids: List[str], force: bool) -> Dict[str, Any]:
        """Remove these items. Items that must be kept stay, with the reason."""
        removed, kept = [], []
        for item in ids:
            why = self._remove(str(item), force)
            if why:
                kept.append([item, why])
            else:
                removed.append(item)
        return {"removed": removed, "kept": kept}

    def _remove(self, item: str, force: bool) -> str:
        kind, _, name = item.partition("/")
        parts = name.split("/")
        if any(part in (".", "..") for part in parts):
            return "no item of that name"
        if item == "bundles":
            return _remove_folder(os.path.join(self._cache, "bundles"))
        if kind == "spool" and len(parts) == 2:
            return self._remove_spool(parts[0], parts[1], force)
        if kind == "warm":
            return self._end_warm(name)
        if kind == "environment" and name in self._environments.complete():
            return self._environments.remove(name)
        if kind == "part" and name in self._environments.given_up():
            return self._environments.remove_given_up(name)
        if any(is_running(self._path(run, host)) for run, host in self._spools()):
            return "an agent is running here, and may need it"
        if kind == "bundle" and len(parts) == 1 and name in _subfolders(os.path.join(self._cache, "agents")):
            return _remove_folder(os.path.join(self._cache, "agents", name))
        if kind == "python" and name in self._pythons.names():
            return self._environments.why_python_stays("uv:" + name) or _removed(lambda: self._pythons.remove(name))
        if item in ("code", "packages"):
            for path in self._code() if item == "code" else self._packages():
                why = _remove_folder(path) if os.path.isdir(path) else ""
                if why:
                    return why
            return ""
        return "no item of that name"

    def _end_warm(self, name: str) -> str:
        for record in self._warm.records():
            if record.name == name:
                self._warm.end(record)
        # One that has ended by itself, or was taken by a run, is gone as well.
        return ""

    def _remove_spool(self, run: str, host: str, force: bool) -> str:
        path = self._path(run, host)
        if (run, host) not in set(self._spools()):
            return "no item of that name"
        if is_running(path):
            return "its agent is running, or it has jobs on a Slurm cluster ('launcher cancel' ends it)"
        uncollected, unfinished = count_attempts(os.path.join(path, "log"))
        if (uncollected or unfinished) and not force:
            return "it holds {} uncollected results and {} unfinished jobs ('launcher attach' collects them)".format(
                uncollected, unfinished
            )
        runtime = runtime_folder_of(path)
        if runtime is not None and runtime != path:
            shutil.rmtree(runtime, ignore_errors=True)
        why = _remove_folder(path)
        if not why:
            try:
                os.rmdir(os.path.dirname(path))
            except OSError:
                pass  # another host entry of the same run has its spool next to it
        return why


def _subfolders(path: str) -> List[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _usage_of(path: str) -> Dict[str, Any]:
    """Return the bytes on the disk, the number of files, and the latest change."""
    usage = usage_of(path)
    return {"bytes": usage.bytes, "files": usage.files, "changed": usage.changed}


def _remove_folder(path: str) -> str:
    return _removed(lambda: remove_tree(path))


def _removed(remove: Callable[[], None]) -> str:
    try:
        remove()
    except OSError as error:
        return "{}: {}".format(error.filename, error.strerror)
    return ""


def serve_cleaning(workdir: Optional[str], cluster_states: ClusterStates) -> int:
    """Answer on stdin and stdout until stdin ends. Returns the exit code."""
    cleaning = Cleaning(workdir, cluster_states)
    return answer_on_stdin(lambda frame: _answer(cleaning, frame))


def _answer(cleaning: Cleaning, frame: wire.Frame) -> Iterator[bytes]:
    header = frame.header
    if header["t"] == "survey":
        yield from _parts("surveyed", cleaning.items(), _PART)
    elif header["t"] == "list_environments":
        yield from _parts("environments_listed", cleaning.environments(), _ENVIRONMENTS)
    elif header["t"] == "list_gpus":
        yield from _gpus(header["gpus"])
    elif header["t"] == "list_use":
        yield wire.encode({"t": "use_listed"}, json.dumps(cleaning.use()).encode("utf-8"))
    elif header["t"] == "ask_pythons":
        yield wire.encode({"t": "pythons"}, json.dumps(cleaning.facts(header["python"])).encode("utf-8"))
    elif header["t"] == "compare_environment":
        compared = cleaning.compare(json.loads(frame.payload.decode("utf-8")))
        yield wire.encode({"t": "environment_compared"}, json.dumps(compared).encode("utf-8"))
    elif header["t"] == "remove":
        answer = cleaning.remove(header["items"], header["force"])
        yield wire.encode({"t": "removed"}, json.dumps(answer).encode("utf-8"))


def _parts(name: Literal["surveyed", "environments_listed"], items: List[Any], size: int) -> Iterator[bytes]:
    while True:
        part, items = items[:size], items[size:]
        payload = json.dumps(part).encode("utf-8")
        if name == "surveyed":
            yield wire.encode({"t": "surveyed", "more": bool(items)}, payload)
        else:
            yield wire.encode({"t": "environments_listed", "more": bool(items)}, payload)
        if not items:
            return


def _gpus(wish: Any) -> Iterator[bytes]:
    found, why, items = list_gpus(wish)
    while True:
        part, items = items[:_GPUS], items[_GPUS:]
        header: GpusListed = {
            "t": "gpus_listed",
            "source": found.source,
            "error": found.error,
            "why": why,
            "covers_host": covers_host(),
            "more": bool(items),
        }
        yield wire.encode(header, json.dumps(part).encode("utf-8"))
        if not items:
            return
