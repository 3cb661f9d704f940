"""If logind would kill the agent at logout, the agent leaves the session and says so. Otherwise nothing is asked."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_agent.protocol import wire
from remote_agent.system.logind import find_escape

ROOT = Path(__file__).parents[3]
IN_SESSION = "0::/user.slice/user-1000.slice/session-7.scope\n"
#: Answers from a file, notes what it was asked, and enables lingering where that is allowed.
LOGINCTL = """#!/bin/sh
echo "loginctl $*" >> "$FAKES/asked"
case "$*" in
  *enable-linger*) [ -e "$FAKES/may-linger" ] || exit 1; echo Linger=yes > "$FAKES/Linger";;
  *--property=*) for one in "$@"; do case "$one" in --property=*) cat "$FAKES/${one#--property=}" 2>/dev/null;; esac; done;;
esac
exit 0
"""
#: Notes its arguments and becomes what follows `--`, as a scope does.
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run $*" >> "$FAKES/asked"
[ -e "$FAKES/no-bus" ] && { echo "Failed to connect to bus" >&2; exit 1; }
while [ "$1" != "--" ]; do shift; done
shift
exec "$@"
"""


class Fakes:
    """A folder of programs that replace those of logind and systemd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("loginctl", LOGINCTL), ("systemd-run", SYSTEMD_RUN)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.cgroup = folder / "cgroup"
        self.cgroup.write_text(IN_SESSION)
        self.set(KillUserProcesses="yes", KillExcludeUsers="nobody-else", KillOnlyUsers="", Linger="no")

    def set(self, **properties: str) -> None:
        """Set what loginctl answers."""
        for name, value in properties.items():
            (self.folder / name).write_text(f"{name}={value}\n")

    @property
    def asked(self) -> str:
        """The questions so far."""
        file = self.folder / "asked"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """The programs come first on the PATH."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    monkeypatch.setenv("FAKES", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Fakes(folder)


def test_outside_of_a_session_nothing_is_asked(fakes: Fakes) -> None:
    """In a container, a service, or under an sshd without PAM."""
    fakes.cgroup.write_text("0::/system.slice/ssh.service\n")
    assert find_escape("run", str(fakes.cgroup)) == ([], {}, [])
    assert fakes.asked == ""


@pytest.mark.parametrize(
    "properties",
    [
        {"KillUserProcesses": "no"},
        {"KillExcludeUsers": f"root {getpass.getuser()}"},
        {"KillOnlyUsers": "somebody-else"},
    ],
)
def test_nothing_is_done_if_logind_kills_nobody(fakes: Fakes, properties: dict[str, str]) -> None:
    """By its general setting, or by its lists of users."""
    fakes.set(**properties)
    assert find_escape("run", str(fakes.cgroup)) == ([], {}, [])


def test_with_lingering_a_scope_is_enough(fakes: Fakes) -> None:
    """Nothing is changed, so there is no note."""
    fakes.set(Linger="yes")
    escape = find_escape("run 1/x", str(fakes.cgroup))
    assert escape.prefix[:3] == ["systemd-run", "--user", "--scope"]
    assert "hydra-remote-launcher-run_1_x" in escape.prefix
    assert escape.notes == []
    assert "enable-linger" not in fakes.asked


def test_lingering_is_enabled_if_allowed_and_reported(fakes: Fakes) -> None:
    """The note has the command that undoes it."""
    (fakes.folder / "may-linger").touch()
    escape = find_escape("run", str(fakes.cgroup))
    assert escape.prefix
    (note,) = escape.notes
    assert f"loginctl disable-linger {getpass.getuser()}" in note
    assert "--no-ask-password enable-linger" in fakes.asked


def test_a_note_says_what_happens_if_lingering_cannot_be_enabled(fakes: Fakes) -> None:
    """The agent ends with the connection, and an administrator can help."""
    escape = find_escape("run", str(fakes.cgroup))
    assert escape.prefix == []
    (note,) = escape.notes
    assert "end when this connection does" in note
    assert f"loginctl enable-linger {getpass.getuser()}" in note


def test_without_loginctl_nothing_is_done(fakes: Fakes) -> None:
    """Because nothing is known."""
    (fakes.folder / "loginctl").unlink()
    assert find_escape("run", str(fakes.cgroup)).prefix == []


# -- a real agent ------------------------------------------------------------------------------------------------


def welcome(tmp_path: Path) -> dict[str, Any]:
    """Start an agent as `connect` does in a session, connect, and end it. Returns its welcome."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from remote_agent.system import logind\n"
        "logind._is_in_session = lambda path: True\n"
        "from remote_agent.__main__ import main\n"
        f"sys.exit(main(['connect', '--run', 'r1', '--host', 'h', '--workdir', {str(tmp_path / 'work')!r}]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = {"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h", "slots": 1}
        process.stdin.write(wire.encode(hello))
        process.stdin.flush()
        said = b""
        while wire.PREAMBLE not in said:
            data = os.read(process.stdout.fileno(), 4096)
            assert data, "it ended before it said anything"
            said += data
        decoder = wire.Decoder()
        frames = decoder.feed(said.partition(wire.PREAMBLE)[2])
        while not frames:
            frames = decoder.feed(os.read(process.stdout.fileno(), 4096))
        process.stdin.write(wire.encode({"t": "finish", "keep": False}))
        process.stdin.flush()
        while os.read(process.stdout.fileno(), 4096):
            pass
    assert frames[0].header["t"] == "welcome"
    return frames[0].header


def test_the_agent_starts_in_a_scope_and_says_what_was_changed(fakes: Fakes, tmp_path: Path) -> None:
    """It is the agent that answers, and the controller gets the note."""
    (fakes.folder / "may-linger").touch()
    header = welcome(tmp_path)
    assert any("lingering was enabled" in note for note in header["notes"])
    assert header["logout"] == header["notes"]
    (line,) = [line for line in fakes.asked.splitlines() if line.startswith("systemd-run")]
    assert " serve --run r1 --host h " in line
    assert json.dumps(header["notes"])


def test_without_a_service_manager_it_starts_all_the_same(fakes: Fakes, tmp_path: Path) -> None:
    """And says that it will not survive the connection."""
    fakes.set(Linger="yes")
    (fakes.folder / "no-bus").touch()
    (note,) = welcome(tmp_path)["notes"]
    assert "no scope of the user's service manager could be made (Failed to connect to bus)" in note
