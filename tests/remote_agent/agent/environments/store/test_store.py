"""Who may build an environment, and when one counts as there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from remote_agent.agent.environments.store import store as module
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.protocol.specs.environment import EnvironmentSpec
from remote_agent.system.host import machine_id
from remote_agent.system.processes import birth

KEY = "b" * 64
SPEC = EnvironmentSpec(KEY, "/usr/bin/python3", [], "a" * 64, 3, "c" * 64, 60.0)


def make(folder: Path, boot: str = "now") -> EnvironmentStore:
    """A store with its folders."""
    store = EnvironmentStore(str(folder), boot)
    store.prepare()
    return store


def put_lock(folder: Path, **fields: object) -> Path:
    """A lock that somebody else has made."""
    path = folder / "envs" / f".lock.{KEY}"
    path.write_text(json.dumps({"boot": "now", "pid": os.getpid(), "started": birth(os.getpid()), **fields}))
    return path


def publish(folder: Path, boot: str = "now", machine: str | None = None) -> Path:
    """An environment."""
    machine = machine if machine is not None else machine_id()
    path = folder / "envs" / KEY
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to("/bin/sh")
    said = {"layout": 1, "spec": SPEC.to_json(), "built": 0, "boot": boot, "machine": machine}
    (path / "environment.json").write_text(json.dumps(said))
    return path


def test_one_builds(tmp_path: Path) -> None:
    """Until it lets go."""
    one, other = make(tmp_path), make(tmp_path)
    assert one.lock(KEY)
    assert not other.lock(KEY)
    other.unlock(KEY)
    assert not other.lock(KEY)
    one.unlock(KEY)
    assert other.lock(KEY)


@pytest.mark.parametrize("gone", [{"pid": 2**22 + 1}, {"started": "another"}])
def test_the_lock_of_one_that_died_counts_no_more(gone: dict[str, object], tmp_path: Path) -> None:
    """Also where its number is another's now."""
    store = make(tmp_path)
    put_lock(tmp_path, **gone)
    assert store.lock(KEY)


def test_the_lock_of_another_machine_counts_while_it_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our clock alone: theirs may be a day off."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    store = make(tmp_path)
    path = put_lock(tmp_path, boot="elsewhere")
    for step in range(5):
        os.utime(path, (step * 86_400, step * 86_400))
        assert not store.lock(KEY)
        now[0] += 50
    assert not store.lock(KEY)
    now[0] += 61
    assert store.lock(KEY)


def test_a_lock_that_was_taken_away_is_not_ours_to_remove(tmp_path: Path) -> None:
    """Whoever has it now goes on."""
    store = make(tmp_path)
    assert store.lock(KEY)
    path = put_lock(tmp_path)
    store.unlock(KEY)
    assert path.exists()


def test_an_environment_counts_with_its_python(tmp_path: Path) -> None:
    """One whose Python has gone does not, nor one without a description."""
    store = make(tmp_path)
    assert store.python(KEY) is None
    path = publish(tmp_path)
    assert store.python(KEY) == str(path / "bin" / "python")
    (path / "bin" / "python").unlink()
    (path / "bin" / "python").symlink_to("/gone/python3")
    assert store.python(KEY) is None


def test_after_a_loss_of_power_only_what_was_on_the_disk_counts(tmp_path: Path) -> None:
    """What another life of the machine has written may be cut short."""
    path = publish(tmp_path, boot="before")
    store = make(tmp_path)
    assert store.is_doubtful(KEY)
    assert store.python(KEY) is None
    make(tmp_path, boot="before").sync(KEY)
    assert (path / "on-disk").exists()
    assert store.python(KEY) is not None


def test_what_another_machine_has_built_counts_at_once(tmp_path: Path) -> None:
    """In a folder that both have: it is in use there, and nobody builds it again over it."""
    publish(tmp_path, boot="elsewhere", machine="other")
    store = make(tmp_path)
    assert not store.is_doubtful(KEY)
    assert store.python(KEY) is not None


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    """It becomes a path."""
    with pytest.raises(ValueError, match="is named"):
        make(tmp_path).path("../x")
