"""The environment of a run: asked for, sent, built, shared with other runs, and told as it stands."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.environments import environments as module
from remote_agent.agent.environments.environments import Environments
from remote_agent.agent.environments.store import PRUNING, EnvironmentStore
from remote_agent.agent.spool.blobs import AlteredError
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import wire
from remote_agent.system.host import Folders
from tests.remote_agent.agent.environments.sites import KEY, Site


class Background:
    """Work waits until the test has it done."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Callable[[BaseException | None], None]]] = []

    def submit(self, work: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Take it."""
        self.waiting.append((work, done))

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

    def want(self, budget: int | None = None) -> None:
        """The controller says what it is made of."""
        payload = json.dumps(self.site.spec().to_json()).encode()
        self.environments.on_environment({"t": "environment", "key": KEY, "budget": budget}, payload)

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
        {"t": "environment", "key": KEY, "budget": None}, json.dumps(spec.to_json()).encode()
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
            run.environments.on_environment({"t": "environment", "key": KEY, "budget": None}, payload)


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
