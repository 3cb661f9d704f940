"""The environments of a run on this node's own disk: the first allocation on a node builds one, from the files on the shared disk.

Rule: an environment there is complete or missing, and whoever builds it holds its lock on that disk, so two allocations on a node never build it
twice. The lock of one that was killed counts no more, and what it has left is removed. No job is taken before all of it is decided here, so a
build ends with its allocation, and no job does. What a node cannot build is an error of the job, which names the node.
"""

import os
import sys
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from remote_agent.agent.environments.build import Builder, BuildError
from remote_agent.agent.environments.on_nodes import ADVICE, NodePlan, own_folder
from remote_agent.agent.environments.programs import reason
from remote_agent.agent.environments.store.eviction import evict
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import PRUNING, EnvironmentStore
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.other_runs import may_run
from remote_agent.agent.zygotes.pool import Prepared
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders, boot_id, slug
from remote_agent.system.private_files import SpoolError, check_parent, make_private_folder

__all__ = ["NodeEnvironments"]

#: Seconds between two looks at a lock that another allocation holds.
_LOOK_EVERY = 1.0


class _Build:
    """One environment on this node. `state` is waiting (for a lock), building, ready or failed. `error`: why it failed."""

    def __init__(self, plan: NodePlan, shared: Folders, run: str, host: str, thread: BackgroundThread) -> None:
        self.plan = plan
        self._shared = shared
        self._user = "{}.{}".format(run, slug(host))
        self._thread = thread
        self._store = EnvironmentStore(own_folder(plan.named), boot_id())
        self._files = EnvironmentStore(shared.cache, boot_id())
        self._builder = Builder(
            self._store, BlobStore(os.path.join(shared.cache, "blobs")), plan.spec, files=self._files, advice=ADVICE
        )
        self.state = "waiting"
        self.error = ""
        self.removed = ""
        #: Whether it was built here and now, and in how many seconds.
        self.took: Optional[float] = None

    def look(self) -> None:
        """Go on, if the lock is free now."""
        self._store.touch()
        if self.state != "waiting":
            return
        try:
            self._make_folder()
            self._store.prepare()
            if self._store.python(self.plan.spec.key) is not None:
                self._use()
            elif self._store.lock(self.plan.spec.key):
                if self._store.is_being_built(PRUNING):
                    self._store.unlock(self.plan.spec.key)
                else:
                    self._begin()
        except (SpoolError, OSError, BuildError) as error:
            self._fail(error)

    def stop(self) -> None:
        """End what is being built. The lock is given back when it has ended."""
        self._builder.stop()

    def give_back(self) -> None:
        """Give the lock back."""
        self._store.unlock(self.plan.spec.key)

    def _make_folder(self) -> None:
        """Make this user's folder on the node's own disk, if the disk is there."""
        named = self.plan.named
        if not os.path.isdir(os.path.dirname(named)):
            raise BuildError("{} is not there\n    next: {}".format(os.path.dirname(named), ADVICE.other_folder))
        if not os.path.isdir(named):
            os.mkdir(named, 0o700)
        folder = make_private_folder(own_folder(named))
        check_parent(folder)
        python = self.plan.spec.python
        if os.path.isabs(python) and not os.access(python, os.X_OK):
            raise BuildError(
                "the Python {}, with which it is made, is not there\n    next: name one that all nodes have, with 'python'".format(
                    python
                )
            )

    def _begin(self) -> None:
        self.state = "building"
        begun = time.monotonic()

        def done(error: Optional[BaseException]) -> None:
            self.give_back()
            if error is not None:
                self._fail(error)
                return
            self.took = time.monotonic() - begun
            self._use()

        self._thread.submit(self._work, done)

    def _work(self) -> None:
        self._make_room()
        self._builder.build()

    def _make_room(self) -> None:
        """Remove what killed builds have left, and old environments. Nobody else comes to this disk to do it."""
        runs = os.path.dirname(os.path.dirname(self._shared.spool))
        inventory = EnvironmentInventory(
            self._store.cache, self._store.boot, lambda run, host: may_run(os.path.join(runs, run, host))
        )
        try:
            for name in inventory.given_up():
                inventory.remove_given_up(name)
            if self.plan.budget is not None:
                # What it holds of its own is for this thread alone. The wheels are on the shared disk, and stay.
                store = EnvironmentStore(self._store.cache, self._store.boot)
                own = BlobStore(os.path.join(self._store.cache, "blobs"))
                gone = evict(store, inventory, own, self.plan.spec, self.plan.budget)
                self.removed = gone.told() if gone.keys else ""
        except (SpoolError, OSError) as error:
            sys.stderr.write("environments: no room was made: {!r}\n".format(error))

    def _use(self) -> None:
        key = self.plan.spec.key
        self._store.use(key, self._user)
        if self._store.python(key) is None:
            self.state = "waiting"  # it was removed just before its use was recorded
            return
        self.state = "ready"
        # Nothing waits for it. If it is not done, the next user of the environment does it.
        threading.Thread(target=self._sync, name="environment", daemon=True).start()

    def _sync(self) -> None:
        try:
            self._store.sync(self.plan.spec.key)
        except OSError as error:
            sys.stderr.write("environment: it cannot be synced to the disk: {}\n".format(error))

    def _fail(self, error: BaseException) -> None:
        self.state, self.error = "failed", reason(error, self._store.cache, ADVICE)


class NodeEnvironments:
    """See the module.

    Args:
        shared: the folders of the run on the shared disk.
        node: the name of this node.
        wake: called from another thread, when there is something to `tick` for.
        note: tells the user something.
    """

    def __init__(
        self, shared: Folders, run: str, host: str, node: str, wake: Callable[[], None], note: Callable[[str], None]
    ) -> None:
        self._arguments = shared, run, host
        self._node = node
        self._wake = wake
        self._note = note
        self._thread: Optional[BackgroundThread] = None
        self._builds: Dict[str, _Build] = {}
        self._waiting: List[Prepared] = []
        self._look_at = 0.0
        #: Whether one cannot be had on this node.
        self.has_failed = False

    @property
    def is_busy(self) -> bool:
        """Whether an application waits for one."""
        return bool(self._waiting)

    def want(self, prepared: Prepared) -> None:
        """Have here what an application needs."""
        if self._thread is None:
            self._thread = BackgroundThread(self._wake)
        plan = NodePlan.from_json(prepared.node or {})
        if plan.spec.key not in self._builds:
            self._builds[plan.spec.key] = _Build(plan, *self._arguments, self._thread)
        self._waiting.append(prepared)
        self._look_at = 0.0

    def tick(self, now: float) -> List[Tuple[Prepared, str, bool]]:
        """Go on. Returns the applications that need not wait any longer: each with why its environment cannot be had, empty if it is here; and
        whether it was built just now.
        """
        if self._thread is None:
            return []
        self._thread.deliver()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            for build in self._builds.values():
                build.look()
        decided = [(one, self._build_of(one)) for one in self._waiting]
        decided = [(one, build) for one, build in decided if build.state in ("ready", "failed")]
        self._waiting = [one for one in self._waiting if self._build_of(one).state not in ("ready", "failed")]
        return [(one, self._told(build), build.took is not None) for one, build in decided]

    def _build_of(self, prepared: Prepared) -> _Build:
        return self._builds[(prepared.node or {})["spec"]["key"]]

    def _told(self, build: _Build) -> str:
        key, where = build.plan.spec.key[:12], own_folder(build.plan.named)
        if build.state == "failed":
            self.has_failed = True
            return "environment {} on node {}: {}".format(key, self._node, build.error)
        if build.removed:
            self._note("environments: {}".format(build.removed))
        if build.took is not None:
            self._note("environment {} was built in {}, in {:.1f} s".format(key, where, build.took))
        return ""

    def close(self) -> None:
        """End what is being built, because the allocation ends."""
        builds, thread = list(self._builds.values()), self._thread
        self._builds, self._waiting, self._thread = {}, [], None
        for build in builds:
            build.stop()
        if thread is not None:
            thread.stop()
        for build in builds:
            build.give_back()
            if build.state == "building":
                self._note(
                    "the allocation ended while it built environment {}; the next one there builds it".format(
                        build.plan.spec.key[:12]
                    )
                )
