"""Which environments go before another one is built, and which files of packages go with them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from remote_agent.agent.environments.store.eviction import UNUSED, Evicted, evict
from remote_agent.agent.environments.store.inventory import EnvironmentInventory
from remote_agent.agent.environments.store.store import EnvironmentStore
from tests.remote_agent.agent.environments.sites import KEY, Site

OLD, NEW, WANTED = "1" * 64, "2" * 64, KEY


@pytest.fixture(scope="module")
def built(bare: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host with two environments."""
    made = bare.copied(tmp_path_factory.mktemp("built"))
    for key in (OLD, NEW):
        made.build(key)
    return made


@pytest.fixture
def site(built: Site, tmp_path: Path) -> Site:
    """The same, of which one was used an hour ago and one just now."""
    made = built.copied(tmp_path)
    for key, ago in ((OLD, 3600.0), (NEW, 0.0)):
        used(made, key, ago)
    return made


def used(site: Site, key: str, ago: float) -> None:
    """Its last use is so many seconds ago."""
    site.store.use(key, "r1.h")
    at = time.time() - ago
    for path in (Path(site.store.folder, ".use", key, "r1.h"), Path(site.store.path(key))):
        os.utime(path, (at, at))


def evicted(site: Site, budget: int, *running: str) -> Evicted:
    """Make room, while these runs go on."""
    store = EnvironmentStore(site.store.cache, "now")
    inventory = EnvironmentInventory(site.store.cache, "now", lambda run, host: run in running)
    return evict(store, inventory, site.blobs, site.spec(WANTED), budget)


def there(site: Site) -> set[str]:
    """The environments that can be used."""
    return {key for key in (OLD, NEW, WANTED) if site.store.python(key) is not None}


def size(site: Site, *keys: str) -> int:
    """What they take together."""
    files = {(status.st_dev, status.st_ino): status.st_blocks * 512
             for key in keys for path in Path(site.store.path(key)).rglob("*")
             if not (status := path.lstat()).st_mode & 0o040000}  # fmt: skip
    return sum(files.values())


def test_the_longest_unused_goes_first(site: Site) -> None:
    """No more of them than must, and files that several have count once."""
    both = size(site, OLD, NEW)
    assert both < size(site, OLD) + size(site, NEW)
    assert evicted(site, both).keys == []
    gone = evicted(site, both - 1)
    assert gone.keys == [OLD]
    assert gone.bytes > 0
    assert gone.total == size(site, NEW)
    assert there(site) == {NEW}


@pytest.mark.slow
def test_what_is_in_use_stays(site: Site) -> None:
    """However small the budget is; also what is about to be built."""
    assert evicted(site, 0, "r1").keys == []
    site.build(WANTED)
    assert evicted(site, 0).keys == [OLD, NEW]
    assert there(site) == {WANTED}


def test_what_was_not_used_for_long_goes_whatever_the_budget_is(site: Site) -> None:
    """And no other."""
    used(site, OLD, UNUSED + 60)
    assert evicted(site, 1 << 60).keys == [OLD]


@pytest.mark.slow
def test_files_of_packages_go_with_the_last_environment_that_has_them(site: Site) -> None:
    """Those of the one that is about to be built stay; what went can be sent and built again."""
    spare = site.wheels.pop()
    wheel = Path(site.store.cache, "wheels", spare.sha256)
    data = Path(site.blobs.path(spare.sha256)).read_bytes()
    evicted(site, size(site, NEW))
    assert wheel.exists(), "an environment that stays has it"
    gone = evicted(site, 0)
    assert gone.keys == [NEW]
    assert not wheel.exists()
    assert not site.blobs.has(spare.sha256)
    assert site.blobs.has(site.wheels[0].sha256)
    site.wheels.append(spare)
    site.blobs.put(spare.sha256, data)
    site.build(WANTED)
    assert there(site) == {WANTED}


def test_what_uv_has_unpacked_goes_too(site: Site) -> None:
    """All that no environment links to."""
    unpacked = [path for path in Path(site.store.cache, "uv").glob("*/archive-v*/*") if path.is_dir()]
    assert unpacked
    evicted(site, 0)
    assert [path for path in unpacked if path.exists()] == []


def test_nothing_that_others_may_need_is_removed(site: Site) -> None:
    """While another run builds, files of packages stay; the environments go."""
    other = EnvironmentStore(site.store.cache, "now")
    assert other.lock("9" * 64)
    spare = site.wheels.pop()
    assert evicted(site, 0).keys == [OLD, NEW]
    assert site.blobs.has(spare.sha256)
