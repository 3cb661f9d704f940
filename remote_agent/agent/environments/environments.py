"""The environment of a run on this host. The controller requests and sends it, the agent builds it, and the zygote uses it.

Rule: a run holds an environment's lock while it is sent, fetched or built. So only one of many runs does that, and the others use the result. The
part of a file that has arrived is kept if the link is lost. What this host fetches itself goes on without a link. Slow work is done in
other threads. The agent's thread decides.
"""

import json
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Set

from remote_agent.agent.environments.build import Builder, BuildError, room_lacking
from remote_agent.agent.environments.fetching.downloads import STOPPED, Download, Downloads
from remote_agent.agent.environments.on_nodes import NodePlan
from remote_agent.agent.environments.programs import reason
from remote_agent.agent.environments.pythons import host_facts
from remote_agent.agent.environments.store.eviction import Evicted, evict
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import PRUNING, EnvironmentStore
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.code.blobs import AlteredError, BlobStore
from remote_agent.agent.spool.other_runs import may_run
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.protocol.messages import AskPythons, Environment
from remote_agent.protocol.specs.environment import EnvironmentSpec, HostFacts
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import slug
from remote_agent.system.private_files import SpoolError

__all__ = ["Environments"]

#: Seconds between two checks of a lock that another run holds, and between two reports of how much has arrived.
_LOOK_EVERY = 1.0
_TELL_EVERY = 0.5
#: If a controller is there and no content comes for this many seconds, it is requested again; and how often.
_CONTENT_PATIENCE = 60.0
_MAX_ASKS = 3
_AGAIN = "\n    next: see why the link is so slow, and start the run again: it goes on where it stopped"
_ALTERED = "\n    next: look for errors of the disk and of the memory there; or name another folder with 'workdir'"
#: How many reasons the user is told why files are not fetched here.
_MAX_NOTED = 5
#: How often it is built again if content was altered.
_MAX_BUILDS = 3


class Environments:
    """At most one environment.

    Attributes:
        on_ready, on_failed: called in the agent's thread, `on_failed` with the message.
        was_there: whether it was complete when it was looked for first, and has been there since.
        nodes: the folder on their own disks in which nodes build it; empty if it is built here.
    """

    def __init__(
        self, paths: SpoolPaths, blobs: BlobStore, background: BackgroundThread, controller: Controller
    ) -> None:
        self._paths = paths
        self._blobs = blobs
        self._background = background
        self._controller = controller
        self._store = EnvironmentStore(paths.where.cache, paths.boot)
        self._spec: Optional[EnvironmentSpec] = None
        #: asked (nothing is known), waiting (for a lock), sending, building, ready, failed.
        self._state = "asked"
        self._missing: Set[str] = set()
        #: Contents that may still arrive and are not needed any more.
        self._given_up: Set[str] = set()
        #: Where this host may fetch contents itself, and which of them are being fetched. The controller is asked for all others.
        self._addresses: Dict[str, Any] = {}
        self._is_named = self._fetches_python = False
        self._fetching: Set[str] = set()
        self._downloads: Optional[Downloads] = None
        self._fetched_before = 0
        self._noted: Set[str] = set()
        self._builder: Optional[Builder] = None
        self._builds = self._asks = 0
        self.was_there = False
        self.nodes = ""
        #: Bytes that environments may have; None for no limit. And how far making room for this one is.
        self._budget: Optional[int] = None
        self._eviction = "owed"
        self._heard_at = self._told_at = self._looked_at = 0.0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failed: Callable[[str], None] = lambda message: None

    @property
    def python(self) -> Optional[str]:
        """The Python of the environment, if it is ready."""
        if self._spec is None or self._state != "ready":
            return None
        plan = self.node_plan
        return plan.python if plan is not None else self._store.python(self._spec.key)

    @property
    def node_plan(self) -> Optional[NodePlan]:
        """What nodes build, if they do."""
        return NodePlan(self.nodes, self._spec, self._budget) if self.nodes and self._spec is not None else None

    @property
    def spec(self) -> Optional[EnvironmentSpec]:
        """The description of the environment, if the controller has sent it."""
        return self._spec

    @property
    def expected(self) -> Set[str]:
        """Contents that continue where they stopped after a link was lost."""
        return self._missing

    # -- messages of the controller ------------------------------------------------------------------------------

    def on_ask(self, header: AskPythons, payload: bytes) -> None:
        """Report the Pythons. They are searched in the background."""
        found: List[HostFacts] = []

        def look() -> None:
            self._store.prepare()
            found.append(host_facts(self._paths.where.cache, header["python"]))

        def done(error: Optional[BaseException]) -> None:
            if error is not None:
                self._fail(self._reason(error))
                return
            self._controller.say({"t": "pythons"}, json.dumps(found[0].to_json()).encode("utf-8"))

        self._background.submit(look, done)

    def on_environment(self, header: Environment, payload: bytes) -> None:
        """Take the controller's description."""
        if self._state in ("ready", "building"):
            return
        try:
            spec = EnvironmentSpec.from_json(json.loads(payload.decode("utf-8")))
        except ValueError as error:
            raise wire.ProtocolError("field", "environment: {}".format(error)) from None
        is_same = self._spec is not None and self._spec.key == spec.key
        self._budget, self._addresses, self._is_named = header["budget"], header["addresses"], header["named"]
        self._fetches_python = header["fetch_python"]
        self._asks = 0
        if is_same and self._state == "sending" and self._fetching:
            # Fetching went on while there was no link.
            self._ask(self._missing - self._fetching)
            return
        if not is_same:
            self._stop_fetching()
            self._give_back()
        self.was_there = self._is_there(spec) if self._spec is None else self.was_there
        self._spec = spec
        self._state = "asked"
        self._given_up = set()
        self._advance()

    def arrived(self, sha256: str) -> None:
        """Record that a content is complete."""
        self._heard_at = time.monotonic()
        self._missing.discard(sha256)
        if self._state == "sending" and not self._missing:
            self._advance()

    def refused(self, sha256: str, error: Exception) -> bool:
        """Handle a content that could not be stored. Returns whether it belongs here."""
        if sha256 in self._given_up:
            return True  # it was sent before it was known that it is not needed
        if sha256 not in self._missing or self._state != "sending":
            return False
        if isinstance(error, OSError):
            self._fail(self._reason(error))
        elif not isinstance(error, AlteredError):
            return False
        elif self._asks >= _MAX_ASKS:
            self._fail("{} does not match the lock, each time it arrives{}".format(self._name(sha256), _ALTERED))
        else:
            self._ask([sha256])
        return True

    def _name(self, sha256: str) -> str:
        files = self._spec.files if self._spec is not None else []
        return next((wheel.file for wheel in files if wheel.sha256 == sha256), "uv")

    def heard(self) -> None:
        """Record that a piece of a content has arrived."""
        self._heard_at = now = time.monotonic()
        if self._state == "sending" and now - self._told_at > _TELL_EVERY:
            self._tell()

    def link_gone(self) -> None:
        """Release the lock if nothing comes any more, so that another run can go on. What has arrived stays."""
        if self._state == "sending" and not self._fetching:
            self._give_back()
            self._state = "asked"

    # -- steps ---------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take the next step."""
        spec, store = self._spec, self._store
        assert spec is not None
        try:
            if self._is_there(spec):
                self._give_back()
                self._ready()
                return
            if self._eviction == "under way" or self._fetching:
                return  # it comes back to this
            if self._state not in ("sending", "building"):
                store.prepare()
                if not store.lock(spec.key):
                    self._set("waiting")
                    return
                if store.is_being_built(PRUNING):
                    store.unlock(spec.key)
                    self._set("waiting")
                    return
                if self._budget is not None and self._eviction == "owed":
                    self._evict(spec, self._budget)
                    return
            self._take_stock(spec)
            if self._missing:
                lacking = room_lacking(store, spec, self._bytes(spec) - self._there(spec), is_built=not self.nodes)
                if lacking:
                    self._fail(lacking)
                    return
                self._state = "sending"
                self._fetch(spec)
                self._ask(self._missing - self._fetching)
            else:
                self._build(spec)
        except (SpoolError, OSError) as error:
            self._fail(self._reason(error))

    def _is_there(self, spec: EnvironmentSpec) -> bool:
        if not self.nodes:
            return self._store.python(spec.key) is not None
        return self._store.is_described(spec.key) and not self._lacking(spec)

    def _evict(self, spec: EnvironmentSpec, budget: int) -> None:
        """Make room, in the background; then go on. What cannot be removed is no reason to fail."""
        self._eviction = "under way"
        found: List[Evicted] = []
        paths = self._paths

        def may_run_of(run: str, host: str) -> bool:
            return may_run(os.path.join(os.path.dirname(os.path.dirname(paths.spool)), run, host))

        def work() -> None:
            cache = self._store.cache
            inventory = EnvironmentInventory(cache, paths.boot, may_run_of)
            # What it holds of its own is for this thread alone.
            found.append(evict(EnvironmentStore(cache, paths.boot), inventory, self._blobs, spec, budget))

        def done(error: Optional[BaseException]) -> None:
            self._eviction = "done"
            if error is not None:
                sys.stderr.write("environments: no room was made: {!r}\n".format(error))
            elif found[0].keys:
                self._controller.note(found[0].told())
            # The lock may have been given back meanwhile, because the link was lost.
            self._store.unlock(spec.key)
            self._state = "asked"
            self._advance()

        self._background.submit(work, done)

    def _take_stock(self, spec: EnvironmentSpec) -> None:
        self._missing = self._lacking(spec)

    def _lacking(self, spec: EnvironmentSpec) -> Set[str]:
        wanted = [wheel.sha256 for wheel in spec.files] + ([] if self._store.uv(spec) is not None else [spec.uv])
        return {sha256 for sha256 in wanted if not self._blobs.has(sha256)}

    def _fetch(self, spec: EnvironmentSpec) -> None:
        """Begin to fetch what has an address."""
        wanted = [
            Download(wheel.sha256, wheel.size, str(self._addresses[wheel.sha256]), wheel.file)
            for wheel in spec.files
            if wheel.sha256 in self._missing and wheel.sha256 in self._addresses
        ]
        if not wanted:
            return
        for one in wanted:
            self._blobs.leave(one.sha256)

        def tell(sha256s: List[str], why: str) -> None:
            self._background.post(lambda: self._fetched(sha256s, why))

        self._fetching = {one.sha256 for one in wanted}
        self._fetched_before = self._fetched_bytes()
        self._downloads = Downloads(self._blobs.folder, wanted, is_named=self._is_named, tell=tell)
        self._downloads.start()

    def _fetched(self, sha256s: List[str], why: str) -> None:
        """Handle files that were fetched, or cannot be."""
        self._fetching.difference_update(sha256s)
        if self._state == "sending":
            if not why:
                self._missing.difference_update(sha256s)
            elif why != STOPPED:
                if why not in self._noted and len(self._noted) < _MAX_NOTED:
                    self._noted.add(why)
                    self._controller.note("{}; your machine sends what is missing".format(why))
                for sha256 in sha256s:
                    self._addresses.pop(sha256, None)
                self._ask(sha256s, is_again=False)
            if not self._missing:
                self._advance()
            elif not self._fetching and self._controller.link is None:
                self.link_gone()
        elif self._state == "asked" and not self._fetching:
            self._advance()

    def _stop_fetching(self) -> None:
        if self._downloads is not None:
            self._downloads.stop()

    def _fetched_bytes(self) -> int:
        return self._fetched_before + (self._downloads.fetched if self._downloads is not None else 0)

    def _ask(self, missing: Iterable[str], *, is_again: bool = True) -> None:
        """Ask the controller for contents. `is_again`: this counts as one more try."""
        self._asks += is_again
        self._heard_at = time.monotonic()
        wanted = [[sha256, self._blobs.resume(sha256)] for sha256 in sorted(missing)]
        self._tell("missing", json.dumps(wanted).encode("utf-8"))

    def _build(self, spec: EnvironmentSpec) -> None:
        builder = self._builder = Builder(self._store, self._blobs, spec, fetches_python=self._fetches_python)
        self._builds += 1
        self.was_there = False
        if self.nodes:
            # It takes no time, unless uv fetches a Python.
            self._state = "building"
        else:
            self._set("building")

        def done(error: Optional[BaseException]) -> None:
            self._builder = None
            if error is None:
                self._give_back()
                self._ready()
            elif isinstance(error, BuildError) and error.altered and self._builds < _MAX_BUILDS:
                # It is requested again, and the lock stays ours.
                self._state = "sending"
                self._advance()
            else:
                self._fail(self._reason(error))

        self._background.submit((lambda: builder.gather(self.nodes)) if self.nodes else builder.build, done)

    def _ready(self) -> None:
        assert self._spec is not None
        self._missing = set()
        self._store.use(self._spec.key, "{}.{}".format(self._paths.run, slug(self._paths.host)))
        if not self._is_there(self._spec):
            # It was removed just before its use was recorded. A recorded use is kept.
            self._state = "asked"
            self._advance()
            return
        self._set("ready")
        # Nothing waits for it, not even the end of the agent. If it is not done, the next user of the environment does it.
        threading.Thread(target=self._sync, args=(self._spec.key,), name="environment", daemon=True).start()
        self.on_ready()

    def _sync(self, key: str) -> None:
        try:
            self._store.sync(key)
        except OSError as error:
            # It works until the power fails, and then it is built again.
            sys.stderr.write("environment {}: cannot be synced to the disk: {}\n".format(key, error))

    def _fail(self, message: str) -> None:
        self._stop_fetching()
        self._give_back()
        self._given_up, self._missing = self._missing, set()
        self._state = "failed"
        self.on_failed(message)

    def _give_back(self) -> None:
        if self._spec is not None:
            self._store.unlock(self._spec.key)

    def _reason(self, error: BaseException) -> str:
        return reason(error, self._store.cache)

    # -- reports -------------------------------------------------------------------------------------------------

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._tell()

    def announce(self) -> None:
        """Report the state to a new link."""
        if self._spec is not None and self._state in ("waiting", "building", "ready"):
            self._tell()

    def _tell(self, state: str = "", payload: bytes = b"") -> None:
        spec = self._spec
        assert spec is not None
        self._told_at = time.monotonic()
        total = self._bytes(spec)
        done = self._there(spec) if self._state == "sending" else total
        self._controller.say(
            {
                "t": "environment_state",
                "key": spec.key,
                "state": state or self._state,
                "done": done,
                "total": total,
                "fetched": self._fetched_bytes(),
            },
            payload,
        )

    @staticmethod
    def _bytes(spec: EnvironmentSpec) -> int:
        return sum(wheel.size for wheel in spec.files) + spec.uv_size

    def _there(self, spec: EnvironmentSpec) -> int:
        sizes = {wheel.sha256: wheel.size for wheel in spec.files}
        sizes[spec.uv] = spec.uv_size
        lacking = sum(sizes[sha256] - self._there_of(sha256) for sha256 in self._missing)
        return self._bytes(spec) - lacking

    def _there_of(self, sha256: str) -> int:
        # A part that is being fetched belongs to the thread that fetches it.
        if sha256 in self._fetching and self._downloads is not None:
            return self._downloads.there(sha256)
        return self._blobs.resume(sha256)

    def tick(self, now: float) -> None:
        """Check whether another run has built it, renew our lock, and request missing contents again."""
        if self._spec is None or now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        self._store.touch()
        if self._state == "waiting":
            self._advance()
        elif self._state == "sending" and now - self._heard_at > _CONTENT_PATIENCE:
            asked = self._missing - self._fetching
            if self._controller.link is None or not asked:
                self._heard_at = now
            elif self._asks >= _MAX_ASKS:
                self._fail("the controller does not send {} of its files{}".format(len(asked), _AGAIN))
            else:
                self._ask(asked)
        if self._state == "sending" and self._fetching:
            self._tell()

    def close(self) -> None:
        """Stop building and fetching, because the agent ends."""
        self._stop_fetching()
        if self._builder is not None:
            self._builder.stop()
        self._give_back()
