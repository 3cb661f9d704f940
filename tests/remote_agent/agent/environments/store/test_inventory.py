"""What is told of environments, and which of them go."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.shared.disk import usage_of
from tests.remote_agent.agent.environments.sites import KEY, Site

OTHER = "d" * 64


@pytest.fixture(scope="module")
def with_one(bare: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host that has an environment."""
    made = bare.copied(tmp_path_factory.mktemp("with-one"))
    made.build()
    return made


@pytest.fixture
def built(with_one: Site, tmp_path: Path) -> Site:
    """The same, for one test alone."""
    return with_one.copied(tmp_path)


def inventory_of(site: Site, *running: str, boot: str = "now") -> EnvironmentInventory:
    """What there is, while these runs go on."""
    return EnvironmentInventory(site.store.cache, boot, lambda run, host: run in running)


def test_what_is_told_of_an_environment(built: Site) -> None:
    """Its packages, its Python, who uses it now, and what it takes alone and with others."""
    built.build(OTHER)
    built.store.use(KEY, "r1.h")
    built.store.use(KEY, "r2.h")
    found = {item["key"]: item for item in inventory_of(built, "r2").items()}
    assert set(found) == {KEY, OTHER}
    item = found[KEY]
    assert (item["state"], item["users"], item["lock"]) == ("ready", ["r2"], "c" * 64)
    assert item["packages"] == [["one", "1.0"], ["two", "1.0"]]
    assert item["bytes"] > 0
    # Files of wheels are in the cache, too.
    assert item["shared"] > 0
    assert item["used"] >= item["built"] - 1


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    """It is shared where it has a name elsewhere, and not where all its names are here."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    data = b"x" * 8192
    for name in ("inside", "outside", "single"):
        (here / name).write_bytes(data)
    os.link(here / "inside", here / "inside-too")
    os.link(here / "outside", elsewhere)
    size = (here / "single").stat().st_blocks * 512
    usage = usage_of(str(here))
    assert (usage.bytes, usage.shared, usage.files) == (3 * size, size, 4)


@pytest.mark.parametrize("how", ["python", "description", "package", "boot"])
def test_one_that_cannot_be_used_is_damaged(built: Site, how: str) -> None:
    """It is said why."""
    folder = Path(built.store.path(KEY))
    boot = "now"
    if how == "python":
        (folder / "bin" / "python").unlink()
    elif how == "description":
        (folder / "environment.json").write_text("{")
    elif how == "package":
        shutil.rmtree(next(folder.glob("lib/*/site-packages/two-1.0.dist-info")))
    else:
        boot = "later"
    (item,) = inventory_of(built, boot=boot).items()
    assert item["state"] == "damaged"
    told = {"python": "Python", "description": "missing or damaged", "package": "two", "boot": "restarted"}
    assert told[how] in item["why"]


def test_what_is_half_built(site: Site) -> None:
    """It is told whether somebody builds it; if nobody does, it can be removed, and else it stays."""
    part = Path(site.store.folder, f".part.{KEY[:16]}.abc")
    part.mkdir()
    inventory = inventory_of(site)
    assert site.store.lock(KEY)
    (item,) = inventory.items()
    assert (item["key"], item["state"]) == (KEY[:16], "building")
    assert inventory.given_up() == []
    assert "being built" in inventory.remove_given_up(part.name)
    site.store.unlock(KEY)
    (item,) = inventory.items()
    assert item["state"] == "given up"
    assert inventory.remove_given_up(part.name) == ""
    assert not part.exists()


def test_a_lock_of_somebody_who_died_is_none(site: Site) -> None:
    """What a builder that was killed has left is given up."""
    Path(site.store.folder, f".part.{KEY[:16]}.abc").mkdir()
    lock = {"boot": "now", "pid": 1 << 22, "started": "never", "nonce": ""}
    Path(site.store.folder, f".lock.{KEY}").write_text(json.dumps(lock))
    (item,) = inventory_of(site).items()
    assert item["state"] == "given up"


def test_one_that_is_in_use_stays(built: Site) -> None:
    """And goes when its run has ended, with what was noted of its use."""
    built.store.use(KEY, "r1.h")
    assert "run r1" in inventory_of(built, "r1").remove(KEY)
    assert built.store.python(KEY) is not None
    assert inventory_of(built).remove(KEY) == ""
    assert os.listdir(os.path.join(built.store.folder, ".use")) == []
    assert inventory_of(built).items() == []


def test_a_use_that_begins_while_it_is_removed(built: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put back: the agent that noted its use finds it."""
    rename = os.rename

    def renamed(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        EnvironmentStore(built.store.cache, "now").use(KEY, "r1.h")
        rename(source, target)

    monkeypatch.setattr(os, "rename", renamed)
    assert "run r1" in inventory_of(built, "r1").remove(KEY)
    assert built.store.python(KEY) is not None
    assert built.parts() == []
