"""What is said to be missing is what would be sent."""

from __future__ import annotations

import os

import pytest

from remote_agent.agent.environments import comparison
from remote_agent.agent.environments.comparison import compare
from tests.remote_agent.agent.environments.sites import Site


def test_what_is_missing(site: Site) -> None:
    """Files that the cache has are not sent again; of an environment that is there nothing is."""
    spec = site.spec()
    lost = site.wheels[0]
    os.unlink(site.blobs.path(lost.sha256))
    found = compare(site.store.cache, "now", spec)
    assert (found["is_there"], found["files"], found["missing_files"]) == (False, 3, 1)
    assert found["missing_bytes"] == lost.size
    assert found["bytes"] == sum(wheel.size for wheel in spec.files) + spec.uv_size
    assert found["lacking"] == ""


def test_one_that_is_there(site: Site) -> None:
    """Nothing of it is sent, whatever became of the files that it was made from."""
    site.build()
    for wheel in site.wheels:
        os.unlink(site.blobs.path(wheel.sha256))
    found = compare(site.store.cache, "now", site.spec())
    assert (found["is_there"], found["missing_files"], found["missing_bytes"]) == (True, 0, 0)


def test_a_disk_without_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how much is needed, and nothing is changed."""
    asked = []

    def lacking(store: object, spec: object, missing: int) -> str:
        asked.append(missing)
        return "1 MiB free"

    monkeypatch.setattr(comparison, "room_lacking", lacking)
    assert compare(site.store.cache, "now", site.spec())["lacking"] == "1 MiB free"
    assert asked == [0]
    assert not os.path.exists(site.store.path(site.spec().key))
