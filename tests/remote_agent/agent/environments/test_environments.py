"""The environment of a run: asked for, sent, built, shared with other runs, and told as it stands."""

from __future__ import annotations

import errno
import json
import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.environments import environments as module
from remote_agent.agent.environments.environments import Environments
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import PRUNING, EnvironmentStore
from remote_agent.agent.spool.code.blobs import AlteredError
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.system.host import Folders
from tests.file_server import FileServer, running_file_server
from tests.remote_agent.agent.environments.sites import KEY, Site


class Background:
    """Work waits until the test has it done."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Callable[[BaseException | None], None]]] = []
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()

    def submit(self, work: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Take it."""
        self.waiting.append((work, done))

    def post(self, call: Callable[[], None]) -> None:
        """Take what another thread has to say."""
        self._posted.put(call)

    def take(self, count: int = 1) -> None:
        """Wait for so much of what other threads have to say, and do it."""
        for _ in range(count):
            self._posted.get(timeout=60)()

    def run(self) -> None:
        """Do what waits."""
        while self.waiting:
            work, done = self.waiting.pop(0)
            try:
                work()
            except Exception as error:
                done(error)
            else:
                done(None)


class Run:
    """An agent's environments, and what it says of them."""

    def __init__(self, site: Site, folder: Path, name: str = "r1") -> None:
        self.site = site
        self.said: list[tuple[dict[str, Any], Any]] = []
        self.link: Any = object()
        self.background = Background()
        self.ready = 0
        self.failed: list[str] = []
        self.notes: list[str] = []
        where = Folders(site.store.cache, str(folder / name), str(folder / name))
        paths = SpoolPaths(name, "h", where, "", 0o022, "now")
        self.environments = Environments(paths, site.blobs, self.background, self)  # type: ignore[arg-type]
        self.environments.on_ready = self._on_ready
        self.environments.on_failed = self.failed.append

    def _on_ready(self) -> None:
        self.ready += 1

    def say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """As the controller's link does."""
        self.said.append((header, json.loads(payload) if payload else None))

    def note(self, text: str) -> None:
        """Tell the user."""
        self.notes.append(text)

    def want(self, budget: int | None = None, key: str = KEY, **addresses: str) -> None:
        """The controller says what it is made of, and where wheels of these names are."""
        payload = json.dumps(self.site.spec(key).to_json()).encode()
        known = {one.sha256: addresses[one.name] for one in self.site.wheels if one.name in addresses}
        self.environments.on_environment(
            {
                "t": "environment",
                "key": key,
                "budget": budget,
                "addresses": known,
                "named": True,
                "fetch_python": False,
            },
            payload,
        )

    def states(self) -> list[str]:
        """What was said so far."""
        return [header["state"] for header, _ in self.said]


def without(site: Site, index: int) -> tuple[str, bytes]:
    """Take a wheel away; returns its name and content."""
    sha256 = site.wheels[index].sha256
    path = Path(site.blobs.path(sha256))
    data = path.read_bytes()
    path.unlink()
    return sha256, data


def test_what_is_missing_is_asked_for_and_built(site: Site, tmp_path: Path) -> None:
    """Then it is ready, and a second run finds it so at once."""
    sha256, data = without(site, 1)
    run = Run(site, tmp_path)
    run.want()
    (header, wanted), *_ = run.said
    assert (header["state"], wanted) == ("missing", [[sha256, 0]])
    assert header["done"] == header["total"] - len(data)
    site.blobs.put(sha256, data)
    run.environments.arrived(sha256)
    assert run.environments.python is None
    run.background.run()
    assert run.environments.python == site.store.python(KEY)
    assert run.states() == ["missing", "building", "ready"]
    assert run.ready == 1
    second = Run(site, tmp_path, "r2")
    second.want()
    assert second.states() == ["ready"]
    assert sorted(path.name[:3] for path in Path(site.store.folder, ".use", KEY).iterdir()) == ["r1.", "r2."]


@pytest.mark.slow
def test_of_two_runs_one_is_sent_the_files(site: Site, tmp_path: Path) -> None:
    """The other waits for it, and takes what it built."""
    sha256, data = without(site, 0)
    one, other = Run(site, tmp_path), Run(site, tmp_path, "r2")
    one.want()
    other.want()
    assert other.states() == ["waiting"]
    site.blobs.put(sha256, data)
    one.environments.arrived(sha256)
    one.background.run()
    other.environments.tick(module.time.monotonic() + 2)
    assert other.states() == ["waiting", "ready"]
    assert not other.background.waiting


@pytest.mark.slow
def test_whoever_loses_its_link_lets_others_send(site: Site, tmp_path: Path) -> None:
    """And goes on with what it has when it comes back."""
    sha256, data = without(site, 0)
    one, other = Run(site, tmp_path), Run(site, tmp_path, "r2")
    one.want()
    site.blobs.put_chunk(sha256, len(data), 0, data[:100])
    one.environments.heard()
    assert one.environments.expected == {sha256}
    one.environments.link_gone()
    other.want()
    assert other.states()[-1] == "missing"
    other.environments.link_gone()
    one.want()
    assert one.said[-1][1] == [[sha256, 100]]
    assert site.blobs.put_chunk(sha256, len(data), 100, data[100:])
    one.environments.arrived(sha256)
    one.background.run()
    assert one.ready == 1


@pytest.mark.slow
def test_content_that_was_altered_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    """A few times; then the host is told of it."""
    run = Run(site, tmp_path)
    path = Path(site.blobs.path(site.wheels[0].sha256))
    good = path.read_bytes()
    bad = good[:50] + bytes([good[50] ^ 1]) + good[51:]
    path.write_bytes(bad)
    run.want()
    run.background.run()
    assert run.states() == ["building", "missing"]
    site.blobs.put(site.wheels[0].sha256, good)
    run.environments.arrived(site.wheels[0].sha256)
    run.background.run()
    assert (run.ready, run.failed) == (1, [])


def test_what_does_not_come_is_asked_for_again_and_then_fails(site: Site, tmp_path: Path) -> None:
    """Nothing waits for ever."""
    without(site, 0)
    run = Run(site, tmp_path)
    run.want()
    now = module.time.monotonic()
    for step in range(1, 5):
        run.environments._heard_at = now
        run.environments.tick(now + step * 100)
    assert run.states().count("missing") == 3
    (failed,) = run.failed
    assert failed.startswith("the controller does not send 1 of its files\n    next: ")
    other = Run(site, tmp_path, "r2")
    other.want()
    assert other.states() == ["missing"], "the lock was not given back"


def test_content_that_arrives_altered_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    """That content alone, while others are on their way; after a few times the host says so."""
    sha256, data = without(site, 0)
    other, _ = without(site, 1)
    run = Run(site, tmp_path)
    run.want()
    bad = bytes([data[0] ^ 1]) + data[1:]
    for asked in range(1, 4):
        with pytest.raises(AlteredError) as altered:
            site.blobs.put(sha256, bad)
        assert run.environments.refused(sha256, altered.value)
        if asked < 3:
            assert run.said[-1][1] == [[sha256, 0]]
    (failed,) = run.failed
    assert failed.startswith("one-1.0-py3-none-any.whl does not match the lock, each time it arrives\n    next: ")
    assert run.environments.refused(other, altered.value), "what is still on its way is of no use"


def test_a_disk_that_is_full_while_content_arrives(site: Site, tmp_path: Path) -> None:
    """The host is told with what to do, and the rest that was on its way disturbs nobody; other content is not ours to judge."""
    sha256, _ = without(site, 0)
    run = Run(site, tmp_path)
    run.want()
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/blobs/x")
    assert not run.environments.refused("e" * 64, full)
    assert run.environments.refused(sha256, full)
    (failed,) = run.failed
    assert failed.startswith("cannot write to /cache/blobs/x: No space left on device\n    next: `launcher clean`")
    assert run.environments.refused(sha256, full)
    assert len(run.failed) == 1
    assert site.store.lock(KEY), "the lock was not given back"


def test_a_folder_of_somebody_else_is_told(site: Site, tmp_path: Path) -> None:
    """With what to do: no environment of it is used."""
    run = Run(site, tmp_path)
    Path(site.store.cache, "wheels").chmod(0o777)
    run.want()
    (failed,) = run.failed
    assert failed.endswith("wheels can be written by others\n    next: name a folder of yours with 'workdir'")


def test_a_failure_has_uvs_words_and_gives_the_lock_back(site: Site, tmp_path: Path) -> None:
    """Another run may have more luck."""
    run = Run(site, tmp_path)
    spec = site.spec(python="/gone/python3")
    run.environments.on_environment(
        {"t": "environment", "key": KEY, "budget": None, "addresses": {}, "named": False, "fetch_python": False},
        json.dumps(spec.to_json()).encode(),
    )
    run.background.run()
    (failed,) = run.failed
    assert "/gone/python3" in failed
    assert site.store.lock(KEY)


def test_what_is_no_description_ends_the_link(site: Site, tmp_path: Path) -> None:
    """It is a breach of the protocol."""
    run = Run(site, tmp_path)
    for payload in (b"x", b"[]", b"{}"):
        with pytest.raises(wire.ProtocolError):
            run.environments.on_environment(
                {
                    "t": "environment",
                    "key": KEY,
                    "budget": None,
                    "addresses": {},
                    "named": False,
                    "fetch_python": False,
                },
                payload,
            )


def test_pythons_are_told(site: Site, tmp_path: Path) -> None:
    """When they have been looked for in the background."""
    run = Run(site, tmp_path)
    run.environments.on_ask({"t": "ask_pythons", "python": site.spec().python}, b"")
    assert not run.said
    run.background.run()
    ((header, facts),) = run.said
    assert header["t"] == "pythons"
    assert facts["pythons"][0]["path"] == site.spec().python


def test_the_end_of_an_agent_gives_the_lock_back(site: Site, tmp_path: Path) -> None:
    """Whatever it was doing."""
    without(site, 0)
    run = Run(site, tmp_path)
    run.want()
    run.environments.close()
    assert site.store.lock(KEY)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [pytest.param(None, marks=pytest.mark.slow), 1])
def test_room_is_made_before_it_is_built(site: Site, tmp_path: Path, budget: int | None) -> None:
    """An old environment goes, and the user is told; without a budget it stays."""
    old = "e" * 64
    site.build(old)
    run = Run(site, tmp_path)
    run.want(budget)
    # As on a new link, while that is under way.
    run.want(budget)
    run.background.run()
    assert run.ready == 1
    assert (site.store.python(old) is None) == (budget is not None)
    assert [note.partition(" (")[0] for note in run.notes] == ["an old environment was removed"] * (budget or 0)


@pytest.mark.slow
def test_files_that_are_being_removed_are_waited_for(site: Site, tmp_path: Path) -> None:
    """Who removes files of packages may not have seen that this one needs them."""
    other = EnvironmentStore(site.store.cache, "now")
    assert other.lock(PRUNING)
    run = Run(site, tmp_path)
    run.want()
    assert run.states() == ["waiting"]
    assert not run.background.waiting
    other.unlock(PRUNING)
    run.environments.tick(1e9)
    run.background.run()
    assert run.ready == 1


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of wheels that this host may ask."""
    with running_file_server() as running:
        yield running


def served(server: FileServer, site: Site, index: int) -> str:
    """Take a wheel away from the host, and give it to the server; returns its address."""
    _, data = without(site, index)
    path = f"/{site.wheels[index].file}"
    server.files[path] = data
    return server.address + path


def test_what_has_an_address_is_fetched_here(site: Site, tmp_path: Path, server: FileServer) -> None:
    """The controller is asked for the rest alone, at the same time; and is told how much came from where."""
    one, (sha256, data) = served(server, site, 0), without(site, 1)
    run = Run(site, tmp_path)
    run.want(one=one)
    (header, wanted), *_ = run.said
    assert (header["state"], wanted, header["fetched"]) == ("missing", [[sha256, 0]], 0)
    run.background.take()
    site.blobs.put(sha256, data)
    run.environments.arrived(sha256)
    run.background.run()
    assert run.ready == 1
    assert run.said[-1][0]["fetched"] == site.wheels[0].size
    assert not run.notes


@pytest.mark.slow
def test_what_cannot_be_fetched_is_asked_for(site: Site, tmp_path: Path, server: FileServer) -> None:
    """From where it stopped; the user is told why, once. A later link with the address tries it again."""
    address = served(server, site, 0)
    data = server.files.pop(f"/{site.wheels[0].file}")
    sha256 = site.wheels[0].sha256
    run = Run(site, tmp_path)
    site.blobs.put_chunk(sha256, len(data), 0, data[:100])
    run.want(one=address)
    run.background.take()
    assert run.said[-1][1] == [[sha256, 100]]
    (note,) = run.notes
    assert note.startswith("one-1.0-py3-none-any.whl was not fetched from 127.0.0.1:")
    assert note.endswith(": status 404; your machine sends what is missing")
    assert site.blobs.put_chunk(sha256, len(data), 100, data[100:])
    run.environments.arrived(sha256)
    run.background.run()
    assert run.ready == 1


def test_what_is_fetched_altered_is_asked_for(site: Site, tmp_path: Path, server: FileServer) -> None:
    """Nothing of it is used, and its name is told."""
    address = served(server, site, 0)
    path, sha256 = f"/{site.wheels[0].file}", site.wheels[0].sha256
    good = server.files[path]
    server.files[path] = good[:-1] + bytes([good[-1] ^ 1])
    run = Run(site, tmp_path)
    run.want(one=address)
    run.background.take()
    assert run.said[-1][1] == [[sha256, 0]]
    assert "one-1.0-py3-none-any.whl" in run.notes[0]
    assert "does not match the lock" in run.notes[0]
    assert not site.blobs.has(sha256)


def test_fetching_goes_on_without_a_link(site: Site, tmp_path: Path, server: FileServer) -> None:
    """The lock stays taken; the next link finds it under way, and is asked for the rest."""
    one, (sha256, _) = served(server, site, 0), without(site, 1)
    run, other = Run(site, tmp_path), Run(site, tmp_path, "r2")
    server.hold.clear()
    run.want(one=one)
    run.link = None
    run.environments.link_gone()
    other.want()
    assert other.states() == ["waiting"]
    run.link = object()
    run.want(one=one)
    assert run.said[-1][1] == [[sha256, 0]]
    server.hold.set()
    run.background.take()
    assert len(server.asked) == 1
    assert site.blobs.has(site.wheels[0].sha256)


def test_the_lock_is_given_back_if_only_the_controller_has_the_rest(
    site: Site, tmp_path: Path, server: FileServer
) -> None:
    """When what was fetched is here, and there is no link."""
    one, _ = served(server, site, 0), without(site, 1)
    run, other = Run(site, tmp_path), Run(site, tmp_path, "r2")
    server.hold.clear()
    run.want(one=one)
    run.link = None
    run.environments.link_gone()
    server.hold.set()
    run.background.take()
    other.want()
    assert other.states() == ["missing"]
    assert [sha256 for sha256, _ in other.said[-1][1]] == [site.wheels[1].sha256]


@pytest.mark.slow
def test_all_that_was_fetched_without_a_link_is_built(site: Site, tmp_path: Path, server: FileServer) -> None:
    """Nobody need come back for that."""
    one = served(server, site, 0)
    run = Run(site, tmp_path)
    server.hold.clear()
    run.want(one=one)
    run.link = None
    run.environments.link_gone()
    server.hold.set()
    run.background.take()
    run.background.run()
    assert run.ready == 1


@pytest.mark.slow
def test_another_choice_ends_what_is_fetched(site: Site, tmp_path: Path, server: FileServer) -> None:
    """It begins when the threads of the one before have let go of their files."""
    one, other = served(server, site, 0), "c" * 64
    run = Run(site, tmp_path)
    server.hold.clear()
    run.want(one=one)
    run.want(key=other, one=one)
    assert [header["key"] for header, _ in run.said] == [KEY]
    server.hold.set()
    run.background.take()
    assert run.said[-1][0]["key"] == other
    run.background.take()
    run.background.run()
    assert site.store.python(other) is not None
    assert site.store.lock(KEY), "the lock was not given back"


@pytest.mark.slow
def test_while_files_are_fetched_the_controller_is_asked_for_no_more(
    site: Site, tmp_path: Path, server: FileServer
) -> None:
    """However long it takes; how far it is, is told."""
    one = served(server, site, 0)
    run = Run(site, tmp_path)
    server.hold.clear()
    run.want(one=one)
    before = len(run.said)
    for step in range(1, 6):
        run.environments.tick(module.time.monotonic() + step * 100)
    assert {header["state"] for header, _ in run.said[before:]} == {"sending"}
    assert not run.failed
    server.hold.set()
    run.background.take()
    run.background.run()
    assert run.ready == 1


def test_a_failure_ends_what_is_fetched(site: Site, tmp_path: Path, server: FileServer) -> None:
    """And what comes after is of no use."""
    one, (sha256, _) = served(server, site, 0), without(site, 1)
    run = Run(site, tmp_path)
    server.hold.clear()
    run.want(one=one)
    assert run.environments.refused(sha256, OSError(errno.ENOSPC, "No space left on device", "/x"))
    server.hold.set()
    run.background.take()
    assert len(run.failed) == 1
    assert run.states() == ["missing"]


def test_files_are_gathered_for_nodes_and_nothing_is_built(site: Site, tmp_path: Path) -> None:
    """It is ready when they are here, under the Python that it has on a node. They are kept, and listed, and a later run finds them."""
    sha256, data = without(site, 0)
    run = Run(site, tmp_path)
    run.environments.nodes = "/scratch"
    run.want(budget=None)
    assert run.states() == ["missing"]
    site.blobs.put(sha256, data)
    run.environments.arrived(sha256)
    run.background.run()
    assert (run.ready, run.failed, run.states()) == (1, [], ["missing", "ready"])
    plan = run.environments.node_plan
    assert plan is not None
    assert (
        run.environments.python == plan.python == f"/scratch/hydra-remote-launcher-{os.geteuid()}/envs/{KEY}/bin/python"
    )
    assert site.store.python(KEY) is None
    assert not site.parts()
    (item,) = EnvironmentInventory(site.store.cache, "now", lambda run, host: True).items()
    assert (item["state"], item["nodes"], item["why"], item["users"]) == ("on nodes", "/scratch", "", ["r1"])
    again = Run(site, tmp_path, "r2")
    again.environments.nodes = "/scratch"
    again.want()
    assert (again.ready, again.states()) == (1, ["ready"])


@pytest.mark.slow
def test_files_for_nodes_are_no_environment_here(site: Site, tmp_path: Path) -> None:
    """A run that builds it on this disk does so, and its nodes' files stay known."""
    gathered = Run(site, tmp_path)
    gathered.environments.nodes = "/scratch"
    gathered.want()
    gathered.background.run()
    assert gathered.ready == 1
    built = Run(site, tmp_path, "r2")
    built.want()
    built.background.run()
    assert built.ready == 1
    assert site.store.python(KEY) is not None
    assert site.store.is_described(KEY)
