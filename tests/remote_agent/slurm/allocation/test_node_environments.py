"""The environments of a run on a node's own disk: built by the first allocation there, once, or not at all with a reason that names the node."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remote_agent.agent.environments import build as building
from remote_agent.agent.environments.build import Builder, BuildError
from remote_agent.agent.environments.on_nodes import NodePlan, own_folder
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.agent.zygotes.pool import Prepared
from remote_agent.slurm.allocation.node_environments import NodeEnvironments
from remote_agent.system.host import Folders, boot_id
from tests.remote_agent.agent.environments.sites import KEY, Site
from tests.specs import zygote_spec


class Node:
    """An allocation's environments, on a node whose disk is a folder."""

    def __init__(self, site: Site, disk: Path, **spec: str) -> None:
        self.plan = NodePlan(str(disk), site.spec(**spec), None)
        self.woken = threading.Event()
        self.notes: list[str] = []
        spool = str(Path(site.store.cache).parent / "runs" / "r1" / "h-1")
        shared = Folders(site.store.cache, spool, spool)
        self.prepared = Prepared("z", zygote_spec(), None, "", "/", self.plan.to_json())
        self.environments = NodeEnvironments(shared, "r1", "h", "n1", self.woken.set, self.notes.append)
        self._now = 0.0

    def look(self) -> list[tuple[str, bool]]:
        """What one look decides: why it cannot be had, and whether it was built just now."""
        self._now += 10.0
        return [tuple(rest) for _, *rest in self.environments.tick(self._now)]  # type: ignore[misc]

    def settle(self) -> list[tuple[str, bool]]:
        """The same, when what it has begun is done."""
        found = self.look()
        while not found:
            assert self.woken.wait(60)
            self.woken.clear()
            found = self.look()
        return found

    @property
    def store(self) -> EnvironmentStore:
        """What lies on the disk of the node."""
        return EnvironmentStore(own_folder(self.plan.named), "another look")


@pytest.fixture
def make(site: Site, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes allocations on one node, whose jobs want the environment of the site."""
    (tmp_path / "disk").mkdir(mode=0o700)
    made: list[Node] = []

    def new(disk: str = "disk", **spec: str) -> Node:
        made.append(Node(site, tmp_path / disk, **spec))
        made[-1].environments.want(made[-1].prepared)
        return made[-1]

    yield new
    for one in made:
        one.environments.close()


def hanging(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Builds begin, and then wait to be stopped. Returns what says that one has begun."""
    begun, stopped = threading.Event(), threading.Event()

    def build(self: Builder) -> None:
        begun.set()
        assert stopped.wait(60)
        raise BuildError("the run ended while it was built")

    monkeypatch.setattr(Builder, "build", build)
    monkeypatch.setattr(Builder, "stop", lambda self: stopped.set())
    return begun


@pytest.mark.slow
def test_the_first_one_builds_it_and_others_find_it(make, site):
    """On the disk of the node. Of the shared disk it takes the wheels, and copies none."""
    node = make()
    assert node.settle() == [("", True)]
    assert (own_folder(node.plan.named) + "/envs/" + KEY) in node.plan.python
    assert os.access(node.plan.python, os.X_OK)
    assert any("was built in" in text for text in node.notes)
    assert not os.listdir(os.path.join(own_folder(node.plan.named), "wheels"))
    assert site.store.python(KEY) is None
    again = make()
    assert (again.settle(), again.notes) == ([("", False)], [])


def test_two_at_once_build_it_once(make, monkeypatch):
    """The second waits for the lock, and goes on when the first has given up: here because its allocation ends."""
    begun = hanging(monkeypatch)
    first, second = make(), make()
    assert not first.look()
    assert begun.wait(60)
    monkeypatch.setattr(Builder, "build", lambda self: pytest.fail("it is being built"))
    assert not second.look()
    assert second.environments.is_busy
    first.environments.close()
    assert first.notes == [f"the allocation ended while it built environment {KEY[:12]}; the next one there builds it"]
    assert not first.environments.is_busy
    monkeypatch.setattr(Builder, "build", lambda self: None)
    assert not second.look()
    assert second.woken.wait(60)


def test_what_a_killed_one_left_is_removed(make, monkeypatch):
    """Its lock does not count, and its part goes, also if that was of another environment."""
    node = make()
    store = node.store
    os.mkdir(own_folder(node.plan.named), 0o700)
    store.prepare()
    Path(store.folder, f".part.{'d' * 16}.dead").mkdir()
    dead = json.dumps({"boot": boot_id(), "pid": 1 << 23, "started": "1", "nonce": ""})
    for key in (KEY, "d" * 64):
        Path(store.folder, f".lock.{key}").write_text(dead)
    monkeypatch.setattr(Builder, "build", lambda self: None)
    node.look()
    assert node.woken.wait(60)
    assert not list(Path(store.folder).glob(".part.*"))
    inventory = EnvironmentInventory(store.cache, store.boot, lambda run, host: False)
    assert not inventory.given_up()


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        ("gone/below", "gone is not there\n    next: name another folder with 'environments' in 'slurm:'"),
        ("file", "file: .*\n    next: name another folder with 'environments'"),
    ],
)
def test_a_disk_that_is_not_there_is_named_with_its_node(make, tmp_path, disk, says):
    """And with what to do."""
    (tmp_path / "file").write_text("")
    node = make(disk)
    ((lacking, is_new),) = node.look()
    assert not is_new
    assert node.environments.has_failed
    assert lacking.startswith(f"environment {KEY[:12]} on node n1: ")
    assert re.search(says, lacking), lacking


def test_a_folder_of_somebody_else_is_refused(make, monkeypatch, tmp_path):
    """Its owner could replace what is run."""
    Path(own_folder(str(tmp_path / "disk"))).mkdir()
    Path(own_folder(str(tmp_path / "disk"))).chmod(0o777)
    ((lacking, _),) = make().look()
    assert "can be written by others\n    next: name another folder with 'environments'" in lacking


def test_a_python_that_this_node_lacks_is_named(make):
    """It is not there where other nodes have it."""
    ((lacking, _),) = make(python="/gone/python3").look()
    assert "node n1: the Python /gone/python3" in lacking
    assert "next: name one that all nodes have, with 'python'" in lacking


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_node(make, monkeypatch, number):
    """Whatever finds it first."""

    def build(self: Builder) -> None:
        raise OSError(number, os.strerror(number), "/disk/file")

    monkeypatch.setattr(Builder, "build", build)
    ((lacking, _),) = make().settle()
    assert f"on node n1: cannot write to /disk/file: {os.strerror(number)}" in lacking
    assert "next: make room on that disk of the node" in lacking
    assert "workdir" not in lacking


def test_room_is_looked_for_on_the_disk_of_the_node(make, monkeypatch):
    """And not on the shared one."""
    usage = building.shutil.disk_usage
    tight = building.shutil._ntuple_diskusage(10, 10, 1 << 20)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: tight if "disk/hydra" in str(path) else usage(path))
    ((lacking, _),) = make().settle()
    assert "1 MiB free in" in lacking
    assert "make room on that disk of the node" in lacking
