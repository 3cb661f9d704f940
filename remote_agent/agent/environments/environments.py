"""The environment of a run on this host: asked for by the controller, sent, built, and used by the zygote.

Rule: whoever sends or builds an environment holds its lock, so that of many runs one does, and the others take what it made. What has
arrived of a file stays when the link is lost. Slow work is done in the background thread; everything is decided in the agent's thread.
"""

import json
import sys
import threading
import time
from typing import Callable, Iterable, List, Optional, Set

from remote_agent.agent.environments.build import Builder, BuildError, room_lacking
from remote_agent.agent.environments.programs import MORE_ROOM
from remote_agent.agent.environments.pythons import host_facts
from remote_agent.agent.environments.store import EnvironmentStore
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.blobs import AlteredError, BlobStore
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.protocol.environment_spec import EnvironmentSpec, HostFacts
from remote_agent.protocol.messages import AskPythons, Environment
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import NO_ROOM, slug, unwritable
from remote_agent.system.private_files import SpoolError

__all__ = ["Environments"]

#: Seconds between two looks at a lock that another run holds, and between two words of how much has arrived.
_LOOK_EVERY = 1.0
_TELL_EVERY = 0.5
#: Seconds without content while a controller is there, after which it is asked for again; and how often.
_CONTENT_PATIENCE = 60.0
_MAX_ASKS = 3
_OTHER_FOLDER = "\n    next: name a folder of yours with 'workdir'"
_AGAIN = "\n    next: see why the link is so slow, and start the run again: it goes on where it stopped"
_ALTERED = "\n    next: look for errors of the disk and of the memory there; or name another folder with 'workdir'"
#: How often it is built again where content was altered.
_MAX_BUILDS = 3


class Environments:
    """At most one environment.

    Attributes:
        on_ready, on_failed: called in the agent's thread; a failure has its message.
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
        #: Contents that may still arrive, and are of no use any more.
        self._given_up: Set[str] = set()
        self._builder: Optional[Builder] = None
        self._builds = self._asks = 0
        self._heard_at = self._told_at = self._looked_at = 0.0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failed: Callable[[str], None] = lambda message: None

    @property
    def python(self) -> Optional[str]:
        """The Python of the environment, once it is there."""
        return self._store.python(self._spec.key) if self._spec is not None and self._state == "ready" else None

    @property
    def spec(self) -> Optional[EnvironmentSpec]:
        """What the environment is made of, once the controller has said it."""
        return self._spec

    @property
    def expected(self) -> Set[str]:
        """Contents that go on where they stopped when a link was lost."""
        return self._missing

    # -- what the controller says --------------------------------------------------------------------------------

    def on_ask(self, header: AskPythons, payload: bytes) -> None:
        """Tell which Pythons there are; they are looked for in the background."""
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
        """The controller says what it is made of."""
        if self._state in ("ready", "building"):
            return
        try:
            spec = EnvironmentSpec.from_json(json.loads(payload.decode("utf-8")))
        except ValueError as error:
            raise wire.ProtocolError("field", "environment: {}".format(error)) from None
        if self._spec is not None and self._spec.key != spec.key:
            self._give_back()
        self._spec = spec
        self._state = "asked"
        self._asks = 0
        self._given_up = set()
        self._advance()

    def arrived(self, sha256: str) -> None:
        """A content is whole."""
        self._heard_at = time.monotonic()
        self._missing.discard(sha256)
        if self._state == "sending" and not self._missing:
            self._advance()

    def refused(self, sha256: str, error: Exception) -> bool:
        """A content could not be kept. Returns whether that is dealt with here."""
        if sha256 in self._given_up:
            return True  # it was on its way already
        if sha256 not in self._missing or self._state != "sending":
            return False
        if isinstance(error, OSError):
            self._fail(self._reason(error))
        elif not isinstance(error, AlteredError):
            return False
        elif self._asks >= _MAX_ASKS:
            self._fail("what arrives of {} is not what the lock says, each time{}".format(self._name(sha256), _ALTERED))
        else:
            self._ask([sha256])
        return True

    def _name(self, sha256: str) -> str:
        files = self._spec.files if self._spec is not None else []
        return next((wheel.file for wheel in files if wheel.sha256 == sha256), "uv")

    def heard(self) -> None:
        """A piece of a content is here."""
        self._heard_at = now = time.monotonic()
        if self._state == "sending" and now - self._told_at > _TELL_EVERY:
            self._tell()

    def link_gone(self) -> None:
        """Nobody sends any more: another run may, meanwhile. What has arrived stays."""
        if self._state == "sending":
            self._give_back()
            self._state = "asked"

    # -- what follows --------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do the next thing, whatever that is."""
        spec, store = self._spec, self._store
        assert spec is not None
        try:
            if store.python(spec.key) is not None:
                self._give_back()
                self._ready()
                return
            if self._state not in ("sending", "building"):
                store.prepare()
                if not store.lock(spec.key):
                    self._set("waiting")
                    return
            self._take_stock(spec)
            if self._missing:
                lacking = room_lacking(store, spec, self._bytes(spec) - self._there(spec))
                if lacking:
                    self._fail(lacking)
                    return
                self._state = "sending"
                self._ask(self._missing)
            else:
                self._build(spec)
        except (SpoolError, OSError) as error:
            self._fail(self._reason(error))

    def _take_stock(self, spec: EnvironmentSpec) -> None:
        wanted = [wheel.sha256 for wheel in spec.files] + ([] if self._store.uv(spec) is not None else [spec.uv])
        self._missing = {sha256 for sha256 in wanted if not self._blobs.has(sha256)}

    def _ask(self, missing: Iterable[str]) -> None:
        self._asks += 1
        self._heard_at = time.monotonic()
        wanted = [[sha256, self._blobs.resume(sha256)] for sha256 in sorted(missing)]
        self._tell("missing", json.dumps(wanted).encode("utf-8"))

    def _build(self, spec: EnvironmentSpec) -> None:
        builder = self._builder = Builder(self._store, self._blobs, spec)
        self._builds += 1
        self._set("building")

        def done(error: Optional[BaseException]) -> None:
            self._builder = None
            if error is None:
                self._give_back()
                self._ready()
            elif isinstance(error, BuildError) and error.altered and self._builds < _MAX_BUILDS:
                # It is asked for again; the lock stays ours.
                self._state = "sending"
                self._advance()
            else:
                self._fail(self._reason(error))

        self._background.submit(builder.build, done)

    def _ready(self) -> None:
        assert self._spec is not None
        self._missing = set()
        self._store.use(self._spec.key, "{}.{}".format(self._paths.run, slug(self._paths.host)))
        if self._store.python(self._spec.key) is None:
            # It was removed just before its use was noted. What is noted is kept.
            self._state = "asked"
            self._advance()
            return
        self._set("ready")
        # Nothing waits for it, not even the end of the agent: what it did not come to is done by the next that uses it.
        threading.Thread(target=self._sync, args=(self._spec.key,), name="environment", daemon=True).start()
        self.on_ready()

    def _sync(self, key: str) -> None:
        try:
            self._store.sync(key)
        except OSError as error:
            # It is as good as before until the power fails; then it is built again.
            sys.stderr.write("environment {}: cannot be brought to the disk: {}\n".format(key, error))

    def _fail(self, message: str) -> None:
        self._give_back()
        self._given_up, self._missing = self._missing, set()
        self._state = "failed"
        self.on_failed(message)

    def _give_back(self) -> None:
        if self._spec is not None:
            self._store.unlock(self._spec.key)

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return "cannot write to {}: {}{}".format(error.filename or self._store.cache, error.strerror, MORE_ROOM)
        if isinstance(error, OSError):
            return "{}{}".format(unwritable(error, self._store.folder), _OTHER_FOLDER)
        if isinstance(error, SpoolError):
            return "{}{}".format(error, _OTHER_FOLDER)
        return str(error) if isinstance(error, BuildError) else repr(error)

    # -- telling -------------------------------------------------------------------------------------------------

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._tell()

    def announce(self) -> None:
        """Tell a new link how it stands."""
        if self._spec is not None and self._state in ("waiting", "building", "ready"):
            self._tell()

    def _tell(self, state: str = "", payload: bytes = b"") -> None:
        spec = self._spec
        assert spec is not None
        self._told_at = time.monotonic()
        total = self._bytes(spec)
        done = self._there(spec) if self._state == "sending" else total
        self._controller.say(
            {"t": "environment_state", "key": spec.key, "state": state or self._state, "done": done, "total": total},
            payload,
        )

    @staticmethod
    def _bytes(spec: EnvironmentSpec) -> int:
        return sum(wheel.size for wheel in spec.files) + spec.uv_size

    def _there(self, spec: EnvironmentSpec) -> int:
        sizes = {wheel.sha256: wheel.size for wheel in spec.files}
        sizes[spec.uv] = spec.uv_size
        lacking = sum(sizes[sha256] - self._blobs.resume(sha256) for sha256 in self._missing)
        return self._bytes(spec) - lacking

    def tick(self, now: float) -> None:
        """Look whether another run has built it; show that we are at it; ask again for what does not come."""
        if self._spec is None or now - self._looked_at < _LOOK_EVERY:
            return
        self._looked_at = now
        self._store.touch()
        if self._state == "waiting":
            self._advance()
        elif self._state == "sending" and now - self._heard_at > _CONTENT_PATIENCE:
            if self._controller.link is None:
                self._heard_at = now
            elif self._asks >= _MAX_ASKS:
                self._fail("the controller does not send {} of its files{}".format(len(self._missing), _AGAIN))
            else:
                self._ask(self._missing)

    def close(self) -> None:
        """The agent ends: what is being built is not needed any more."""
        if self._builder is not None:
            self._builder.stop()
        self._give_back()
