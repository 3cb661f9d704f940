"""Two real hosts, one of which is four times as fast: jobs that wait on the slow one run on the fast one, each once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.demo.server import DemoServer

_JOBS = 20
_APP = """
import os
import time
from pathlib import Path


def work(num, total, folder):
    # A job of the slow host ends when the fast one has ended four for each of its own, or nothing else is left.
    folder, host = Path(folder), os.environ["WHICH"]
    with open(folder / "started", "a") as file:
        file.write(f"{host} {num}\\n")
    mine = 1 + len(list(folder.glob("slow-*")))
    while host == "slow" and not (folder / "over").exists():
        fast, slow = len(list(folder.glob("fast-*"))), len(list(folder.glob("slow-*")))
        if fast >= 4 * mine or fast + slow == total - 1:
            break
        time.sleep(0.01)
    (folder / f"{host}-{num}").touch()
    return host
"""


@pytest.fixture
def hosts() -> Iterator[list[dict[str, Any]]]:
    """With a slot each."""
    with DemoServer("fast") as fast, DemoServer("slow") as slow:
        yield [
            {"name": one.alias, "ssh_config": str(one.ssh_config), "slots": 1, "setup": [f"export WHICH={one.alias}"]}
            for one in (slow, fast)
        ]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("resources", [None, {"cpus": 1}], ids=["alike", "sized"])
def test_a_fast_host_ends_what_waits_on_a_slow_one(
    hosts: list[dict[str, Any]], resources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was left, so each host has half of the jobs. The slow one can end four while the fast one ends sixteen. A job that is not taken
    back would never end.
    """
    (tmp_path / "stealing_app.py").write_text(_APP)
    (tmp_path / "done").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from stealing_app import work

    try:
        with launcher.Session.open(hosts=hosts, folder=tmp_path / "out") as session:
            for num in range(_JOBS):
                session.submit(work, num, _JOBS, str(tmp_path / "done"), resources=resources)
            assert session.detach() == 0
        with launcher.Session.resume(tmp_path / "out") as session:
            done = Counter(job.result() for job in session.as_completed())
    finally:
        (tmp_path / "done" / "over").touch()
        del sys.modules["stealing_app"]
    started = Counter(line.split()[1] for line in (tmp_path / "done" / "started").read_text().splitlines())
    assert set(started.values()) == {1}
    assert done.total() == len(started) == _JOBS
    assert done["fast"] >= _JOBS * 4 / 5 - 1
