"""The zygotes of a run: the code and the shared payload arrive and are written to disk, then a process imports the application.

Rule: a zygote starts when everything that it needs is here. A zygote that dies is started again, and its jobs go on without it.
Content that does not arrive is requested again; in the end the jobs that wait for it fail, so nothing waits for ever.
"""

import json
import os
import selectors
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set

from remote_agent.agent.environments.environments import Environments
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.code.code_tree import CodeTree
from remote_agent.agent.spool.code.left_files import LeftFiles
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.client import ZygoteClient
from remote_agent.agent.zygotes.code import Code
from remote_agent.agent.zygotes.spare import Spare
from remote_agent.agent.zygotes.warm import WarmInterpreters
from remote_agent.job import ENVIRONMENT_FAILED, PYTHON_FAILED, SETUP_FAILED, STORE_FAILED, JobError, ResourcesUsed
from remote_agent.protocol import wire
from remote_agent.protocol.fields import is_sha256
from remote_agent.protocol.messages import Blob, Blobs, Manifest, Prepare, Withheld
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import unwritable, unwritten
from remote_agent.system.private_files import SpoolError, make_private_folder

__all__ = ["Prepared", "ZygoteListener", "Zygotes"]

#: How often a zygote that dies before it is ready is started again.
MAX_ZYGOTE_STARTS = 3
#: If a controller is there and no content comes for this many seconds, it is requested again; and how often.
CONTENT_PATIENCE = 60.0
MAX_ASKS = 3
#: Seconds between two checks of what waits.
_CHECK_EVERY = 1.0


class Prepared(NamedTuple):
    """All that an application needs to be prepared, and lies on a disk.

    Attributes:
        spec: with the Python of the environment, if there is one.
        code_root: the folder of the code; None if none was sent.
        shared_file: what all jobs share.
        default_cwd: where jobs without code run.
        node: what must be built before on the node where it is prepared; see `remote_agent.agent.environments.on_nodes.NodePlan`.
    """

    key: str
    spec: ZygoteSpec
    code_root: Optional[str]
    shared_file: str
    default_cwd: str
    node: Optional[Dict[str, Any]] = None


class ZygoteListener:
    """The interface for what zygotes report."""

    def forked(self, zygote: ZygoteClient, attempt_id: str, pid: int) -> None:
        """A process has begun."""
        raise NotImplementedError

    def exited(self, attempt_id: str, status: int, used: Optional[ResourcesUsed]) -> None:
        """A process has ended. `status` is that of waitpid. `used`: by it in all its life."""
        raise NotImplementedError

    def orphaned(self, attempt_ids: List[str]) -> None:
        """The zygote is gone. These were its children."""
        raise NotImplementedError

    def unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        """The application cannot be prepared."""
        raise NotImplementedError


class Zygotes:
    """Zygotes by key, and the content that they need."""

    def __init__(
        self,
        paths: SpoolPaths,
        selector: selectors.BaseSelector,
        background: BackgroundThread,
        controller: Controller,
        spare: Optional[Spare] = None,
    ) -> None:
        self._paths = paths
        self._spare = spare
        self._warm = WarmInterpreters(paths.where.cache, paths.bundle)
        self._selector = selector
        self._background = background
        self._controller = controller
        self._by_key: Dict[str, ZygoteClient] = {}
        #: How many threads a job's numerical libraries start, unless the user says it; 0 for what they choose.
        self.threads = 0
        self._withheld: Set[str] = set()
        #: Contents of the run that the disk did not take -> why.
        self._unstored: Dict[str, str] = {}
        self._starts: Dict[str, int] = {}
        #: When content, or a message about it, last arrived.
        self._content_heard_at = 0.0
        self._check_at = 0.0
        self.cache = BlobStore(os.path.join(paths.where.cache, "blobs"))
        self.blobs = BlobStore(paths.blobs, is_durable=True)
        self.environments = Environments(paths, self.cache, background, controller)
        self.environments.on_ready = self._start_all
        self.environments.on_failed = self._environment_failed
        self._tree = CodeTree(self.cache, paths.where.cache, paths.spool)
        self._code = Code(self._tree, background, controller, self._start_all)
        self.listener = ZygoteListener()
        #: Takes what an application needs to be prepared, when it is all here. None: it is prepared here.
        self.publish: Optional[Callable[[Prepared], None]] = None
        #: key -> what another agent has published.
        self._prepared: Dict[str, Prepared] = {}

    def get(self, key: str) -> Optional[ZygoteClient]:
        """Return the zygote of that key, if the controller has asked for it."""
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[ZygoteClient]:
        return iter(list(self._by_key.values()))

    @property
    def left(self) -> LeftFiles:
        """What jobs have written beside their code."""
        return self._tree.left

    # -- content -------------------------------------------------------------------------------------------------

    def on_blob(self, header: Blob, payload: bytes) -> None:
        """Take a part of a large content."""
        self._content_heard_at = time.monotonic()
        store = self.blobs if header["scope"] == "run" else self.cache
        try:
            whole = store.put_chunk(header["sha256"], header["size"], header["offset"], payload)
        except (SpoolError, OSError) as error:
            if store is self.cache and self.environments.refused(header["sha256"], error):
                return
            self._not_stored(header["sha256"], error, store)
            return
        self._unstored.pop(header["sha256"], None)
        if whole:
            self._arrived(header["sha256"])
        else:
            self.environments.heard()

    def on_blobs(self, header: Blobs, payload: bytes) -> None:
        """Take many small contents."""
        self._content_heard_at = time.monotonic()
        offset = 0
        try:
            for sha256, size in header["items"]:
                self.cache.put(str(sha256), payload[offset : offset + int(size)])
                offset += int(size)
        except (SpoolError, OSError) as error:
            self._not_stored("", error, self.cache)
            return
        self._code.arrived([str(sha256) for sha256, _ in header["items"]])

    def _not_stored(self, sha256: str, error: Exception, store: BlobStore) -> None:
        """Fail what waits for content that the disk did not take. Other errors end the link, and the next one brings the content again."""
        if isinstance(error, OSError):
            if store is self.cache:
                self._code.fail(OSError(error.errno, error.strerror, error.filename or store.folder))
            else:
                self._unstored[sha256] = unwritten(error, store.folder)
            self._start_all()
        elif sha256 not in self._unstored and not (store is self.cache and self._code.error is not None):
            # The next parts of a content that the disk did not take follow none.
            self._controller.refuse("store", str(error))

    def unstored(self, sha256: str) -> str:
        """Why the disk did not take a content of the run; empty if it did, or has not been sent."""
        return self._unstored.get(sha256, "")

    def _arrived(self, sha256: str) -> None:
        self._code.arrived([sha256])
        self.environments.arrived(sha256)
        self._start_all()

    def on_manifest(self, header: Manifest, payload: bytes) -> None:
        """Ask the controller for what is missing here of the code, and lay it out."""
        sha256 = header["sha256"]
        if not is_sha256(sha256):
            raise wire.ProtocolError("field", "manifest: {!r} is not a SHA-256".format(sha256[:80]))
        self._code.request(sha256)

    def drop_partial(self) -> None:
        """Drop contents that arrived only in part, because the link is gone. The files of an environment are continued later."""
        self._unstored.clear()
        self.cache.drop_partial(keep=self.environments.expected)
        self.blobs.drop_partial()
        self.environments.link_gone()

    # -- starting ------------------------------------------------------------------------------------------------

    def on_prepare(self, header: Prepare, payload: bytes) -> None:
        """Take the controller's message about how to prepare the application."""
        self._content_heard_at = time.monotonic()
        key = header["zygote"]
        known = self._by_key.get(key)
        if known is not None and known.state != "dead" and key not in self._withheld:
            return
        # Read it before it is kept. If an invalid spec were kept, every later link would fail, too.
        spec = ZygoteSpec.from_json(header["spec"])
        self._withheld.discard(key)
        self._by_key[key] = ZygoteClient(key, spec)
        self._start_all()

    def on_withheld(self, header: Withheld, payload: bytes) -> None:
        """Fail what waits for content that the controller cannot send. A later controller may have it again."""
        for zygote in list(self._by_key.values()):
            if zygote.state == "waiting":
                self._withheld.add(zygote.key)
                self._failed(zygote, "host", ENVIRONMENT_FAILED if header["environment"] else "", header["message"])

    def _environment_failed(self, message: str) -> None:
        for zygote in list(self._by_key.values()):
            if zygote.state == "waiting" and zygote.spec.environment:
                # A later controller may have another environment, or find more room.
                self._withheld.add(zygote.key)
                self._failed(zygote, "host", ENVIRONMENT_FAILED, message)

    def _start_all(self) -> None:
        for zygote in self._by_key.values():
            if zygote.state == "waiting":
                self._prepare(zygote)

    def prepare(self, prepared: Prepared, lacking: str = "") -> None:
        """Start a zygote with what another agent has published. `lacking`: why its environment cannot be had; empty if it is here."""
        self._prepared[prepared.key] = prepared
        self._by_key[prepared.key] = zygote = ZygoteClient(prepared.key, prepared.spec)
        if lacking:
            self._failed(zygote, "host", ENVIRONMENT_FAILED, lacking)
        else:
            self._prepare(zygote)

    def drop_spare(self) -> None:
        """Do without the spare, whose environment was built anew meanwhile."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self._discard_spare(spare)

    def _prepare(self, zygote: ZygoteClient) -> None:
        """Start a zygote when everything that it needs has arrived, and the code is laid out."""
        if zygote.key in self._prepared:
            self._launch(zygote, self._prepared[zygote.key])
            return
        spec = zygote.spec
        shared = spec.shared
        if shared and not self.blobs.has(shared):
            if shared in self._unstored:
                self._store_failed(zygote, self._unstored[shared])
            return
        if spec.code_blob and self._code.folder is None and self._code.error is not None:
            self._store_failed(zygote, "code: {}".format(self._code.reason()))
            return
        if spec.environment and self.environments.python is None:
            return
        folder = self._code.folder if spec.code_blob else None
        if not spec.code_blob or folder is not None:
            # It may be the previous zygote's. The cache may be gone by now.
            self._all_here(zygote, folder)

    def _store_failed(self, zygote: ZygoteClient, message: str) -> None:
        # A later controller may find more room.
        self._withheld.add(zygote.key)
        self._failed(zygote, "host", STORE_FAILED, message)

    def _all_here(self, zygote: ZygoteClient, code_root: Optional[str]) -> None:
        zygote.spec = self._with_environment(zygote.spec._replace(umask=self._paths.umask))
        shared = zygote.spec.shared
        try:
            default_cwd = "" if code_root else self._folder_without_code()
        except OSError as error:
            self._cannot_start(zygote, error)
            return
        shared_file = self.blobs.path(shared) if shared else ""
        plan = self.environments.node_plan if zygote.spec.environment else None
        node = plan.to_json() if plan is not None else None
        prepared = Prepared(zygote.key, zygote.spec, code_root, shared_file, default_cwd, node)
        if self.publish is None:
            self._launch(zygote, prepared)
            return
        zygote.state = "published"
        self.publish(prepared)

    def _launch(self, zygote: ZygoteClient, prepared: Prepared) -> None:
        arguments = prepared.code_root, prepared.shared_file, prepared.default_cwd
        try:
            if not self._adopt(zygote, *arguments):
                self._start(zygote, *arguments)
        except OSError as error:
            self._cannot_start(zygote, error)
            return
        assert zygote.sock is not None
        self._selector.register(zygote.sock, selectors.EVENT_READ, lambda sock, mask: self._readable(zygote))

    def _cannot_start(self, zygote: ZygoteClient, error: OSError) -> None:
        if str(error.filename).startswith(os.path.join(self._paths.spool, "")):
            self._failed(zygote, "host", type(error).__name__, unwritable(error, self._paths.spool))
            return
        python = zygote.spec.python or "python3"
        self._failed(zygote, "host", PYTHON_FAILED, "cannot start {}: {}".format(python, error.strerror or error))

    def _with_environment(self, spec: ZygoteSpec) -> ZygoteSpec:
        """Return the spec with the Python of the environment, if there is one. Jobs report which one they had."""
        made = self.environments.spec
        if not spec.environment or made is None:
            return spec
        return spec._replace(
            python=self.environments.python, code=dict(spec.code, environment={"key": made.key, "lock": made.lock})
        )

    def _folder_without_code(self) -> str:
        """Return where jobs without code run: the home folder or, without a home, an empty folder of the run."""
        home = os.path.expanduser("~")
        return home if os.path.isdir(home) else make_private_folder(os.path.join(self._paths.spool, "code"))

    def _adopt(self, zygote: ZygoteClient, code_root: Optional[str], shared_file: str, default_cwd: str) -> bool:
        """Use a warm interpreter or the spare process, if it was started in the same way as this zygote would be."""
        is_published = zygote.key in self._prepared
        warm = None
        if not is_published:
            warm = self._warm.adopt(zygote.spec, zygote.environment(self.threads), self._new_log())
        spare, self._spare = self._spare, None
        if warm is not None and zygote.adopt(warm, code_root, shared_file, default_cwd):
            if spare is not None:
                self._discard_spare(spare)
            return True
        if spare is None:
            return False
        # A spare of an environment that was built anew meanwhile has the files of the old one.
        # What was published was built before this agent began, or the spare was dropped.
        is_current = is_published or self.environments.was_there or not spare.environment
        fits = is_current and spare.threads == self.threads and spare.fits(zygote.spec)
        if fits and zygote.adopt(spare, code_root, shared_file, default_cwd):
            return True
        self._discard_spare(spare)
        return False

    def _discard_spare(self, spare: Spare) -> None:
        spare.close()
        self._background.submit(spare.process.wait, None)

    def _start(self, zygote: ZygoteClient, code_root: Optional[str], shared_file: str, default_cwd: str) -> None:
        self._starts[zygote.key] = self._starts.get(zygote.key, 0) + 1
        zygote.start(self._paths.bundle, self._new_log(), code_root, shared_file, default_cwd, self.threads)

    def _new_log(self) -> str:
        logs = os.path.join(self._paths.spool, "logs")
        return os.path.join(logs, "zygote-{}".format(len(os.listdir(logs))))

    def _readable(self, zygote: ZygoteClient, *, is_gone: bool = False) -> None:
        frames, gone = zygote.receive()
        gone = gone or is_gone
        for frame in frames:
            header = frame.header
            if header["t"] == "preparing":
                zygote.has_spoken = True
            elif header["t"] == "ready":
                zygote.state = "ready"
                zygote.python, zygote.isolation = header["python"], header["isolation"]
                zygote.why = header["why"]
                zygote.notes = header["notes"]
                zygote.imported = header["imported"]
                zygote.again = json.loads(frame.payload.decode("utf-8")) if frame.payload else None
                self._announce(zygote)
            elif header["t"] == "unusable":
                self._unusable(zygote, JobError.from_json(header["error"]))
            elif header["t"] == "forked":
                self.listener.forked(zygote, header["attempt"], header["pid"])
            elif header["t"] == "exited":
                zygote.children.pop(header["attempt"], None)
                used = header["used"]
                self.listener.exited(
                    header["attempt"], header["status"], ResourcesUsed.from_json(used) if used is not None else None
                )
        if gone:
            self._gone(zygote)

    def _gone(self, zygote: ZygoteClient) -> None:
        """Handle the end of a zygote.

        Its jobs go on, and are watched by pid from now on. A new one starts if jobs wait.
        """
        assert zygote.sock is not None
        self._selector.unregister(zygote.sock)
        zygote.close()
        was_failed = zygote.error is not None
        self.listener.orphaned(list(zygote.children))
        if zygote.process is not None:
            self._background.submit(zygote.process.wait, None)
        if was_failed:
            zygote.state = "failed"
            return
        setup_failure = zygote.setup_failure() if not zygote.python else None
        if setup_failure is not None:
            self._failed(zygote, "host", SETUP_FAILED, setup_failure)
            return
        if not zygote.python and self._starts.get(zygote.key, 0) >= MAX_ZYGOTE_STARTS:
            said = zygote.log_tail().strip() or "(nothing)"
            # A summary shows only the first line, so the last line of the output goes there.
            last = said.rpartition("\n")[2].strip()
            kind, name, what = "host", PYTHON_FAILED, "the job environment's Python did not start"
            if zygote.has_spoken:
                kind, name, what = "import", "", "preparing the application ended the process"
            self._failed(zygote, kind, name, "{}: {}; it printed:\n{}".format(what, last, said))
            return
        fresh = ZygoteClient(zygote.key, zygote.spec)
        self._by_key[zygote.key] = fresh
        if zygote.python:
            self._controller.note(
                "zygote {} died and is started again; its log: {}".format(zygote.key, zygote.log_tail()[-500:])
            )
        self._prepare(fresh)
        self._request_content(fresh)

    # -- missing content -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Notice zygotes whose end their socket does not show, and ask again for content that does not come."""
        if now < self._check_at:
            return
        self._check_at = now + _CHECK_EVERY
        self.environments.tick(now)
        for zygote in list(self._by_key.values()):
            if zygote.sock is not None and zygote.process is not None and zygote.process.poll() is not None:
                # A process that the application's import started still holds the other end open.
                self._readable(zygote, is_gone=True)
        if self._controller.link is None:
            # The next controller says what it has, and is asked for the rest.
            self._content_heard_at = now
        elif now - self._content_heard_at > CONTENT_PATIENCE:
            self._content_heard_at = now
            for zygote in list(self._by_key.values()):
                self._request_content(zygote)

    def _request_content(self, zygote: ZygoteClient) -> None:
        """Ask the controller for what a zygote waits for.

        After several requests without an answer, the zygote fails.
        """
        if zygote.state != "waiting" or self._controller.link is None or self._code.is_busy:
            return
        if zygote.spec.environment and self.environments.python is None:
            return  # the environment's part asks for what is missing of it
        zygote.asks += 1
        shared, blob = zygote.spec.shared, zygote.spec.code_blob
        lacks_shared = bool(shared) and not self.blobs.has(shared)
        if zygote.asks > MAX_ASKS or (lacks_shared and self._starts.get(zygote.key)):
            what = "the run's callbacks and task" if lacks_shared else "the code"
            where = self.blobs.folder if lacks_shared else self.cache.folder
            self._failed(
                zygote,
                "host",
                "",
                "{} is missing from {}, and the controller did not send it again".format(what, where),
            )
        elif blob and not lacks_shared:
            self.on_manifest({"t": "manifest", "sha256": blob}, b"")

    def _failed(self, zygote: ZygoteClient, kind: str, name: str, message: str) -> None:
        self._unusable(zygote, JobError(kind, name, message))

    def _unusable(self, zygote: ZygoteClient, error: JobError) -> None:
        zygote.state = "failed"
        zygote.error = error
        self._announce(zygote)
        self.listener.unusable(zygote, error)

    def announce_all(self) -> None:
        """Tell a new link what was decided, but for failures that it may mend: it has those zygotes prepared again."""
        for zygote in self:
            if zygote.key not in self._withheld:
                self._announce(zygote)

    def _announce(self, zygote: ZygoteClient) -> None:
        """Tell the controller the state of a zygote, when it is decided."""
        if zygote.state not in ("ready", "failed"):
            return
        self._controller.say(
            {
                "t": "zygote",
                "zygote": zygote.key,
                "state": zygote.state,
                "error": None if zygote.error is None else zygote.error.to_json(),
                "python": zygote.python,
                "isolation": zygote.isolation,
                "why": zygote.why,
                "notes": zygote.notes,
                "imported": zygote.imported,
            }
        )

    def leave_warm(self) -> None:
        """Start a warm interpreter for the next run."""
        for zygote in self._by_key.values():
            if zygote.again is not None:
                self._warm.leave(
                    zygote.spec, zygote.environment(self.threads), zygote.again["modules"], zygote.again["imported"]
                )

    def warm_seconds(self) -> float:
        """Return for how many seconds something may wait for the next run."""
        return max((zygote.spec.warm for zygote in self._by_key.values()), default=0.0)

    def leave_none(self) -> None:
        """End what waits for later runs."""
        self._warm.end_all()

    def close(self) -> None:
        """Close all zygotes. Each ends when its last child has ended."""
        self.environments.close()
        if self._spare is not None:
            self._discard_spare(self._spare)
        for zygote in self._by_key.values():
            zygote.close()
        for zygote in self._by_key.values():
            if zygote.process is not None:
                try:
                    zygote.process.wait(timeout=5)
                except Exception:  # noqa: BLE001
                    zygote.process.kill()
                    zygote.process.wait()

    def keep_code(self) -> None:
        """Leave the code to later runs. The run is over, and its zygotes are closed."""
        self._tree.keep()
