"""A home that cannot be written: the user is told once what is wrong and what to set, and with that setting the run
works.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import launcher
from launcher import events
from launcher.display.lines import EventLines
from launcher.display.tally import Tally
from tests.faults.injection import FaultyRun, load_app, small_disk
from tests.hosts.openssh import OpenSshHost, running_openssh_host

pytestmark = pytest.mark.openssh

SCRATCH = "/mnt/scratch"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OpenSshHost]:
    """A host for this test, with a disk for everybody beside the homes."""
    with running_openssh_host(tmp_path / "host") as running:
        done = running.run(
            f"mount -t tmpfs -o mode=0755 mnt /mnt && mkdir {SCRATCH} && mount -t tmpfs -o mode=1777 scratch {SCRATCH}"
        )
        assert done.returncode == 0, done.stderr
        yield running


def read_only(host: OpenSshHost) -> None:
    """Make the home read-only, as with a shared image or a disk with errors."""
    done = host.run(f"mount -o remount,bind,ro /home/{host.user}")
    assert done.returncode == 0, done.stderr


def full(host: OpenSshHost) -> None:
    """Fill the home, so that nothing is left of the quota."""
    small_disk(host, f"/home/{host.user}", "size=64k")
    host.run(f"cat /dev/zero > /home/{host.user}/filler")


def missing(host: OpenSshHost) -> None:
    """Remove the home, as if a directory service had the account and nobody had made its home here."""
    host.move_home("/home/gone")


def nonexistent(host: OpenSshHost) -> None:
    """Set the home to /nonexistent, as Debian does for accounts of services."""
    host.move_home("/nonexistent")


def told(run: FaultyRun) -> str:
    """Return what a terminal shows of the run."""
    tally = Tally()
    event_lines = EventLines(tally)
    lines = []
    for event in run.seen:
        tally(event)
        lines += [line.text for line in event_lines.lines(event)]
    return "\n".join(lines)


@pytest.mark.parametrize("broken", [read_only, full, missing, nonexistent], ids=lambda one: one.__name__)
def test_a_home_that_cannot_be_used_is_an_error_with_advice(
    host: OpenSshHost, tmp_path: Path, broken: Callable[[OpenSshHost], None]
) -> None:
    """The error comes once, and names the host, the phase, the folder, and `workdir`.

    With that option the same run completes.
    """
    broken(host)
    run = FaultyRun(tmp_path).start(load_app().homeless, 2, [host.spec()], callbacks=[])
    returns = run.finish()
    (unusable,) = run.of(events.HostUnusable)
    assert (unusable.host, unusable.phase) == (host.name, "start agent")
    assert re.search(r"cannot write to (/home/\w+|/nonexistent)", unusable.why)
    assert "workdir" in unusable.next_step
    assert [one.error.kind for one in returns if one.error] == ["host", "host"]
    shown = told(run)
    assert len(re.findall(f"host {host.name}: cannot be used: start agent: ", shown)) == 1
    assert "next: set `workdir:` for this host" in shown

    again = FaultyRun(tmp_path / "again").start(
        load_app().homeless, 2, [host.spec(workdir=f"{SCRATCH}/mine")], callbacks=[]
    )
    assert [one.return_value for one in again.finish()] == [0, 10]
    assert not again.of(events.Warned)


def test_a_home_that_fills_up_is_an_error_with_advice(host: OpenSshHost, tmp_path: Path) -> None:
    """Whatever does not fit, from the bundle to the last file of a job, the error names the folder and `workdir`."""
    home = f"/home/{host.user}"
    small_disk(host, home, "size=64m")
    FaultyRun(tmp_path / "roomy").start(load_app().homeless, 2, [host.spec()], callbacks=[]).finish()
    bundle = int(host.run(f"find {home} -name '*.pyc' -delete; du -sk {home}/.cache").stdout.split()[0])
    host.run(f"umount --lazy {home}")
    phases: set[str] = set()
    # First the bundle does not fit, then what the spool begins with, then what is sent, at last what a job writes.
    for kib in itertools.chain((bundle // 2,), itertools.count(bundle, 12)):
        small_disk(host, home, f"size={kib}k")
        run = FaultyRun(tmp_path / f"{kib}").start(
            load_app().homeless, 2, [host.spec()], callbacks=[], host_loss_timeout=1
        )
        errors = [one.error for one in run.finish(60)]
        # A starter that is late by its connection would unpack the end of its bundle onto the next disk.
        host.run(f"while pkill -KILL -u {host.uid}; do sleep 0.01; done; umount --lazy {home}")
        for error in errors:
            assert error is not None, f"{kib} KiB were enough for a job"
            assert error.kind in ("host", "lost"), (kib, error)
            assert "No space left" in error.message, (kib, error)
            assert home in error.message, (kib, error)
        assert "workdir" in told(run), (kib, errors)
        phases |= {one.phase for one in run.of(events.HostUnusable)}
        if run.of(events.AttemptEnded):
            break
    assert "start agent" in phases


@pytest.mark.parametrize("broken", [missing, nonexistent], ids=lambda one: one.__name__)
def test_without_a_home_and_without_code_a_job_runs_in_the_workdir(
    host: OpenSshHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[OpenSshHost], None]
) -> None:
    """An installed package is not a project, so no code is sent, and there is no home in which to run."""
    broken(host)
    monkeypatch.chdir(tmp_path)
    spec = host.spec(workdir=f"{SCRATCH}/mine", setup=["export SET=up"])
    returned = launcher.run("builtins:str", {"x": 1}, host=spec, folder=tmp_path / "out")
    assert returned.error is None, returned.error
    assert returned.return_value == "{'x': 1}"
