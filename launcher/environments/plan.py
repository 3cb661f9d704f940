"""Chooses what a host installs, from the run's lock and the host's facts.

Rule: the key of an environment depends only on what makes a difference: the contents of its wheels, its Python, its platform, our layout.
A lock that was made again with the same contents has the same key.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.environments.addresses import Addresses
from launcher.environments.fetchable_pythons import fetchable_pythons
from launcher.environments.host_uv import uv_for
from launcher.environments.local_folders import check_all_are_named, check_none_is_built
from launcher.environments.lock import Lock, compile_for, find_compiled, keep_compiled, write_whole
from launcher.environments.select import Chosen, DoesNotFit, choose
from launcher.environments.uv import USUAL_LIMIT, Steps, uv_version
from launcher.environments.wheels import WheelCache, digest_of
from launcher.errors import PackagesError
from launcher.util.text.quoting import shown
from launcher.util.user_folders import cache_folder
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts, PythonFacts, Wheel

__all__ = ["EnvironmentPlan", "EnvironmentSource"]

#: Must grow when the same wheels would give another environment.
_LAYOUT = 1
#: How many Pythons a message names.
_MAX_NAMED = 5


@dataclass(frozen=True)
class EnvironmentPlan:
    """The plan for what a host installs.

    Attributes:
        spec: the description for the host.
        lock: the lock from which it was chosen.
        sources: sha256 of a wheel -> where it comes from.
        uv: the program that installs them.
        steps: the steps to which fetching belongs.
    """

    spec: EnvironmentSpec
    lock: Lock
    sources: dict[str, Chosen] = field(repr=False, default_factory=dict)
    uv: Path | None = None
    steps: Steps | None = field(repr=False, compare=False, default=None)

    def addresses(self, allowed: bool | tuple[str, ...]) -> dict[str, str]:
        """Return sha256 -> address, for the wheels that the host may fetch itself.

        Args:
            allowed: the user's `downloads` for this host.
        """
        return Addresses(allowed, self.lock).of(self.sources.values())

    def fetch(self, sha256: str, *, is_doubtful: bool = False) -> Path:
        """Return a content that the host asks for, as a file here.

        Args:
            is_doubtful: whether the file here may have been altered.

        Raises:
            PackagesError: it does not belong to this environment, or cannot be fetched.
        """
        if sha256 == self.spec.uv and self.uv is not None:
            if is_doubtful and digest_of(self.uv) != sha256:
                raise PackagesError(
                    f"environment: {self.uv} has changed since the run began\n    next: start the run again"
                )
            return self.uv
        chosen = self.sources.get(sha256)
        if chosen is None:
            raise PackagesError("environment: the host asks for a file that does not belong to its environment")
        return WheelCache(dict(self.lock.indexes), steps=self.steps).fetch(chosen, is_doubtful=is_doubtful)


class EnvironmentSource:
    """Makes the plan for a host from the host's facts.

    Args:
        lock: the run's lock.
        prefers: major and minor version of the preferred Python.
        kept: a folder of the run for locks of its hosts.
        limit: seconds for each step, here and on the host.
        earlier: the same folder of an earlier run, which this one repeats. What was resolved then counts.
        is_exact: nothing else counts.
        may_build: whether build code of a project may run here.
    """

    def __init__(
        self,
        lock: Lock,
        prefers: Sequence[int],
        kept: Path | None,
        limit: float = USUAL_LIMIT,
        *,
        earlier: Path | None = None,
        is_exact: bool = False,
        may_build: bool = True,
    ) -> None:
        self.lock = lock
        self._steps = Steps(limit, may_build=may_build)
        self._prefers = list(prefers)
        self._kept = kept
        self._earlier = earlier
        self._is_exact = is_exact
        self._known: tuple[HostFacts, EnvironmentPlan] | None = None
        self._busy = threading.Lock()

    def plan(
        self, facts: HostFacts, named: str | None = None, downloads: bool | tuple[str, ...] = False
    ) -> EnvironmentPlan:
        """Return what the host installs. This takes as long as uv and the index. The same facts give the same plan.

        Args:
            named: the only Python of the host that counts, as the user named it.
            downloads: what the host may fetch itself. If no Python there fits, uv may fetch one.

        Raises:
            PackagesError: nothing fits, or something cannot be fetched.
        """
        facts = facts._replace(free=0)
        with self._busy:
            if self._known is None or self._known[0] != facts:
                self._known = (facts, self._remembered(facts, downloads) or self._made(facts, named, downloads))
            return self._known[1]

    def stop(self) -> None:
        """End the work for this host, because the run is over there."""
        self._steps.stop()

    def _made(self, facts: HostFacts, named: str | None, downloads: bool | tuple[str, ...]) -> EnvironmentPlan:
        pythons = sorted((PythonFacts.from_json(one) for one in facts.pythons), key=self._rank)
        refused: list[str] = []
        for python in itertools.chain(pythons, () if named else self._fetchable(facts, downloads)):
            try:
                chosen = choose(self._resolved(facts, python), facts, python)
            except DoesNotFit as error:
                refused.append(f"{python.version} ({python.path}): {error}")
                continue
            plan = self._plan(facts, python, chosen)
            self._remember(facts, downloads, plan)
            return plan
        fetch = "" if downloads or named else "; or allow `downloads` for this host, so that uv fetches a Python there"
        if not pythons and named:
            raise PackagesError(
                f"environment: the Python {shown(named)} is not there, or does not start\n    next: see what it says on the host "
                "(`python` of this host, or --python, names it); without it, a Python that fits is looked for there"
            )
        if not pythons:
            raise PackagesError(
                f"environment: no Python was found there\n    next: install one, or name one with `python` for this host{fetch}"
            )
        more = f"\n    and {len(refused) - _MAX_NAMED} more" if len(refused) > _MAX_NAMED else ""
        raise PackagesError(
            f"environment: {self.lock.name} fits no Python there:\n    "
            + "\n    ".join(refused[:_MAX_NAMED])
            + more
            + "\n    next: "
            f"install a Python that it fits, or name one with `python` for this host{fetch}; or have `uv lock` make a lock that fits it"
        )

    def _fetchable(self, facts: HostFacts, downloads: bool | tuple[str, ...]) -> Iterator[PythonFacts]:
        """Yield the Pythons that uv may fetch there. uv is asked only if no other fits."""
        if downloads:
            addresses = Addresses(downloads, self.lock)
            found = [one for one, url in fetchable_pythons(facts, self._steps) if addresses.allows(url)]
            yield from sorted(found, key=self._rank)

    def _resolved(self, facts: HostFacts, python: PythonFacts) -> Lock:
        if self.lock.is_resolved:
            return self.lock
        found = find_compiled(self.lock, facts, python, self._earlier)
        if found is not None:
            keep_compiled(found, self.lock, facts, python, self._kept)
            return found
        if self._is_exact:
            raise DoesNotFit("the run that is repeated resolved its requirements for other Pythons or platforms")
        if not self._steps.may_build:
            check_none_is_built(self.lock)
        compiled = compile_for(self.lock, facts, python, self._kept, self._steps)
        check_all_are_named(compiled, self.lock)
        return compiled

    def _rank(self, python: PythonFacts) -> tuple[bool, bool, list[int]]:
        numbers = [int(part) for part in python.version.split(".")[:2]]
        return numbers != self._prefers, python.implementation != "cpython", [-one for one in numbers]

    def _plan(self, facts: HostFacts, python: PythonFacts, chosen: list[Chosen]) -> EnvironmentPlan:
        cache = WheelCache(dict(self.lock.indexes), steps=self._steps)
        files = [cache.wheel_of(one) for one in chosen]
        # If the lock has no sizes, they are known when the files are here.
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

    # -- earlier plans -------------------------------------------------------------------------------------------

    def _note(self, facts: HostFacts, downloads: bool | tuple[str, ...]) -> Path:
        known = [
            _LAYOUT,
            uv_version(),
            self.lock.sha256,
            self._prefers,
            facts.to_json(),
            *([downloads] if downloads else []),
        ]
        key = json.dumps(known, sort_keys=True)
        return cache_folder() / "environments" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _remembered(self, facts: HostFacts, downloads: bool | tuple[str, ...]) -> EnvironmentPlan | None:
        """Return an earlier choice from the same lock for the same host, if everything that it needs is still here."""
        if not self.lock.is_resolved:
            return None
        try:
            said: Any = json.loads(self._note(facts, downloads).read_bytes())
            spec = EnvironmentSpec.from_json(said["spec"])._replace(limit=self._steps.limit)
            # An earlier version did not keep the index, without which it is not known whether that wants credentials.
            sources = {one["sha256"]: Chosen(index=one.pop("index"), **one) for one in said["sources"]}
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

    def _remember(self, facts: HostFacts, downloads: bool | tuple[str, ...], plan: EnvironmentPlan) -> None:
        if self.lock.is_resolved:
            said = {"spec": plan.spec.to_json(), "sources": [vars(one) for one in plan.sources.values()]}
            write_whole(self._note(facts, downloads), json.dumps(said).encode())
