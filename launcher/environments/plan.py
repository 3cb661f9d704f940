"""What a host installs: chosen for it from the lock of its run, by what it says of itself.

Rule: the key of an environment is made of what makes a difference (the contents of its wheels, its Python, its platform, our layout) and of
nothing else: a lock that is written anew with the same contents has the same key.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.environments.host_uv import uv_for
from launcher.environments.lock import Lock, compile_for, write_whole
from launcher.environments.select import Chosen, DoesNotFit, choose
from launcher.environments.uv import USUAL_LIMIT, Steps, uv_version
from launcher.environments.wheels import WheelCache, digest_of
from launcher.errors import PackagesError
from launcher.util.user_folders import cache_folder
from remote_agent.protocol.environment_spec import EnvironmentSpec, HostFacts, PythonFacts, Wheel

__all__ = ["EnvironmentPlan", "EnvironmentSource"]

#: Grows when an environment of the same wheels would be made in another way.
_LAYOUT = 1
#: Pythons that a message names.
_MAX_NAMED = 5


@dataclass(frozen=True)
class EnvironmentPlan:
    """What a host installs.

    Attributes:
        spec: as the host is told.
        lock: what it was chosen from.
        sources: where its wheels come from, by their sha256.
        uv: the program that installs them.
        steps: what fetching them is one of.
    """

    spec: EnvironmentSpec
    lock: Lock
    sources: dict[str, Chosen] = field(repr=False, default_factory=dict)
    uv: Path | None = None
    steps: Steps | None = field(repr=False, compare=False, default=None)

    def fetch(self, sha256: str, *, is_doubtful: bool = False) -> Path:
        """A content that the host asks for, as a file here.

        Args:
            is_doubtful: what is here may have been altered.

        Raises:
            PackagesError: it is none of this environment's, or cannot be had.
        """
        if sha256 == self.spec.uv and self.uv is not None:
            if is_doubtful and digest_of(self.uv) != sha256:
                raise PackagesError(
                    f"environment: {self.uv} has changed since the run began\n    next: start the run again"
                )
            return self.uv
        chosen = self.sources.get(sha256)
        if chosen is None:
            raise PackagesError("environment: the host asks for a file that is none of its environment's")
        return WheelCache(dict(self.lock.indexes), steps=self.steps).fetch(chosen, is_doubtful=is_doubtful)


class EnvironmentSource:
    """The environment of a host, as soon as it says what it has.

    Args:
        lock: of the run.
        prefers: major and minor version of the Python to take first; others follow.
        kept: a folder of the run, where locks for hosts are kept.
        limit: seconds for each step, here and on the host.
    """

    def __init__(self, lock: Lock, prefers: Sequence[int], kept: Path | None, limit: float = USUAL_LIMIT) -> None:
        self.lock = lock
        self._steps = Steps(limit)
        self._prefers = list(prefers)
        self._kept = kept
        self._known: tuple[HostFacts, EnvironmentPlan] | None = None
        self._busy = threading.Lock()

    def plan(self, facts: HostFacts) -> EnvironmentPlan:
        """What the host installs; takes as long as uv and the index take. For the same facts it is the same.

        Raises:
            PackagesError: nothing fits, or something cannot be had.
        """
        facts = facts._replace(free=0)
        with self._busy:
            if self._known is None or self._known[0] != facts:
                self._known = (facts, self._remembered(facts) or self._made(facts))
            return self._known[1]

    def stop(self) -> None:
        """The run is over on this host: end what is being done for it."""
        self._steps.stop()

    def _made(self, facts: HostFacts) -> EnvironmentPlan:
        pythons = sorted((PythonFacts.from_json(one) for one in facts.pythons), key=self._rank)
        refused: list[str] = []
        for python in pythons:
            try:
                lock = (
                    self.lock
                    if self.lock.is_resolved
                    else compile_for(self.lock, facts, python, self._kept, self._steps)
                )
                chosen = choose(lock, facts, python)
            except DoesNotFit as error:
                refused.append(f"{python.version} ({python.path}): {error}")
                continue
            plan = self._plan(facts, python, chosen)
            self._remember(facts, plan)
            return plan
        if not pythons:
            raise PackagesError(
                "environment: no Python was found there\n    next: install one, or name one with `python` for this host"
            )
        more = f"\n    and {len(refused) - _MAX_NAMED} more" if len(refused) > _MAX_NAMED else ""
        raise PackagesError(
            f"environment: {self.lock.name} fits no Python there:\n    "
            + "\n    ".join(refused[:_MAX_NAMED])
            + more
            + "\n    next: "
            "install a Python that it fits, or name one with `python` for this host; or have `uv lock` make a lock that fits it"
        )

    def _rank(self, python: PythonFacts) -> tuple[bool, bool, list[int]]:
        numbers = [int(part) for part in python.version.split(".")[:2]]
        return numbers != self._prefers, python.implementation != "cpython", [-one for one in numbers]

    def _plan(self, facts: HostFacts, python: PythonFacts, chosen: list[Chosen]) -> EnvironmentPlan:
        cache = WheelCache(dict(self.lock.indexes), steps=self._steps)
        files = [cache.wheel_of(one) for one in chosen]
        # Of a lock that says no sizes, they are known when the files are here.
        files = [one if one.size is not None else replace(one, size=cache.fetch(one).stat().st_size) for one in files]
        wheels = [Wheel(one.name, one.version, one.file, one.sha256, one.size or 0) for one in files]
        uv, sha256 = uv_for(facts, self._steps)
        key = [
            _LAYOUT,
            sorted(one.sha256 for one in wheels),
            python.version,
            python.abi,
            python.path,
            facts.system,
            facts.machine,
        ]
        spec = EnvironmentSpec(
            key=hashlib.sha256(json.dumps(key).encode()).hexdigest(),
            python=python.path,
            wheels=[one.to_json() for one in wheels],
            uv=sha256,
            uv_size=uv.stat().st_size,
            lock=self.lock.sha256,
            limit=self._steps.limit,
        )
        return EnvironmentPlan(spec, self.lock, {one.sha256: one for one in files}, uv, self._steps)

    # -- what was chosen before ----------------------------------------------------------------------------------

    def _note(self, facts: HostFacts) -> Path:
        key = json.dumps([_LAYOUT, uv_version(), self.lock.sha256, self._prefers, facts.to_json()], sort_keys=True)
        return cache_folder() / "environments" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _remembered(self, facts: HostFacts) -> EnvironmentPlan | None:
        """What was chosen from the same lock for the same host before, where all that it needs is still here."""
        if not self.lock.is_resolved:
            return None
        try:
            said: Any = json.loads(self._note(facts).read_bytes())
            spec = EnvironmentSpec.from_json(said["spec"])._replace(limit=self._steps.limit)
            sources = {one["sha256"]: Chosen(**one) for one in said["sources"]}
        except (OSError, ValueError, LookupError, TypeError):
            return None
        cache = WheelCache(dict(self.lock.indexes), steps=self._steps)
        has_built = all(
            one.url != cache.path(sha256).as_uri() or cache.path(sha256).is_file() for sha256, one in sources.items()
        )
        is_whole = set(sources) == {wheel.sha256 for wheel in spec.files} and has_built
        uv, sha256 = uv_for(facts, self._steps)
        is_whole = is_whole and spec.uv == sha256
        return EnvironmentPlan(spec, self.lock, sources, uv, self._steps) if is_whole else None

    def _remember(self, facts: HostFacts, plan: EnvironmentPlan) -> None:
        if self.lock.is_resolved:
            said = {"spec": plan.spec.to_json(), "sources": [vars(one) for one in plan.sources.values()]}
            write_whole(self._note(facts), json.dumps(said).encode())
