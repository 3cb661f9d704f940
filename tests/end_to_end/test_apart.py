"""Two users of a host do not affect each other, and neither do two runs of one user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import events
from launcher.errors import RunInterrupted
from tests.controllers import ROOT
from tests.faults.injection import FaultyRun, lines, load_app, open_gate, pids_of
from tests.hosts.openssh import OpenSshHost, running_openssh_host

pytestmark = pytest.mark.openssh

COMMAND = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"
OTHER = "neighbour"
#: Everywhere that is not the system's own; of what belongs to one user, what another can read, write or enter.
WITHIN_REACH = "find /home /tmp /var/tmp /run /dev/shm -user {whose} \\( -readable -o -writable -o -type d -executable \\) 2>/dev/null"
#: From within the folder: the path is longer than what AF_UNIX takes.
CONNECT = "import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).connect(sys.argv[2])"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OpenSshHost]:
    """A host for this test. Everybody can enter its homes, as on many systems."""
    with running_openssh_host(tmp_path / "host") as running:
        running.home.chmod(0o755)
        yield running


def running(home: Path) -> int:
    """Return how many jobs have begun there."""
    return len((home / "ran").read_text().splitlines()) if (home / "ran").exists() else 0


def test_two_users_of_one_host_do_not_affect_each_other(host: OpenSshHost, tmp_path: Path) -> None:
    """They run the same project at the same time.

    Both complete, and neither can read the other's files or reach the other's agent.
    """
    homes = {host.user: host.home, OTHER: host.add_user(OTHER)}
    app = load_app()
    meetings = {
        user: FaultyRun(tmp_path / user).start(app.whose, 2, [host.spec(user=user, slots=2)], config={"whose": user})
        for user in homes
    }
    for user, run in meetings.items():
        run.wait_for(f"{user}'s jobs to run", lambda home=homes[user]: running(home) == 2)  # type: ignore[misc]
    for user, other in ((host.user, OTHER), (OTHER, host.user)):
        everything = host.run(f"find /home/{other} -path '*hydra-remote-launcher*'").stdout
        assert "/log\n" in everything, "there is something to look at"
        assert "/code/faulty.py\n" in everything
        within_reach = host.run(WITHIN_REACH.format(whose=other), user=user).stdout.splitlines()
        # What the jobs themselves write has the modes that the user's umask gives it.
        theirs = [f"/home/{other}/{name}" for name in ("", "ran", "hooks", "pid.0", "pid.1")]
        assert {path.rstrip("/") for path in within_reach} <= {path.rstrip("/") for path in theirs}
        (socket,) = [path for path in everything.splitlines() if path.endswith("/agent.sock")]
        connect = f"python3 -c '{CONNECT}' {socket.replace('/agent.sock', ' agent.sock')}"
        assert "PermissionError" in host.run(connect, user=user).stderr
        assert host.run(connect, user=other).returncode == 0
    for home in homes.values():
        (home / "gate").write_text("")
    for user, run in meetings.items():
        assert [one.return_value for one in run.finish()] == [f"{user}'s 0", f"{user}'s 1"]
        assert running(homes[user]) == 2


def test_the_workdir_of_another_user_is_refused_with_advice(host: OpenSshHost, tmp_path: Path) -> None:
    """If two users name the same folder, the second one gets an error, and the first one is not affected."""
    host.add_user(OTHER)
    host.run("mkdir -m 1777 /tmp/lab")
    app = load_app()
    first = FaultyRun(tmp_path / "first").start(app.gated, 1, [host.spec(workdir="/tmp/lab")])
    first.wait_for("the job to run", lambda: running(host.home) == 1)
    second = FaultyRun(tmp_path / "second").start(app.gated, 1, [host.spec(user=OTHER, workdir="/tmp/lab")])
    second.finish()
    (unusable,) = second.of(events.HostUnusable)
    assert (unusable.phase, unusable.why) == ("start agent", "/tmp/lab/cache belongs to another user")
    assert "set `workdir:` for this host to a folder that its user, and nobody else, can write" in unusable.next_step
    open_gate(host)
    first.check_nothing_lost(host, 1)


def test_two_runs_of_one_user_do_not_affect_each_other(host: OpenSshHost, tmp_path: Path) -> None:
    """They run the same application at the same time.

    Each has its own jobs, and cancelling one run does not affect the other.
    """
    app = load_app()
    stays, goes = (
        FaultyRun(tmp_path / whose).start(app.whose, 2, [host.spec(slots=2)], config={"whose": whose})
        for whose in ("stays", "goes")
    )
    for run in (stays, goes):
        run.wait_started(2)
        assert [event.slots for event in run.of(events.HostReady)] == [2]
    stays.wait_for("all four to run", lambda: running(host.home) == 4)
    assert len(pids_of(host, "agent")) == 2
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "cancel", str(goes.folder / "sweep")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(RunInterrupted, match="launcher cancel"):
        goes.finish()
    assert {(one.num, (one.error or {})["kind"]) for one in goes.of(events.JobReturned)} == {
        (0, "cancelled"),
        (1, "cancelled"),
    }
    assert not stays.of(events.JobReturned)
    assert not stays.of(events.HostUnknown)
    assert len(pids_of(host, "job")) == 2, "the other run's jobs run on"
    open_gate(host)
    assert [one.return_value for one in stays.finish()] == ["stays's 0", "stays's 1"]
    # Both runs have a job 0 and a job 1: each of the four ran once, and closed its hooks.
    assert Counter(lines(host, "ran")) == {"0": 2, "1": 2}
    assert Counter(lines(host, "hooks")) == Counter(
        f"{hook} {num}" for hook in ("start", "end") for num in (0, 0, 1, 1)
    )
    stays.wait_for("both agents to end", lambda: not pids_of(host, "agent"))
