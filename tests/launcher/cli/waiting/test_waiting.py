"""Commands that are forked from a process that waits: nobody can tell, whatever they get and however they end."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.zygotes.warm import NO_WARM, SUBMITTERS
from remote_agent.system.waiting.warm_store import WarmRecord, WarmStore
from tests.remote_agent.agents import wait_until
from tests.requirements import need_programs, need_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes that wait need Linux"),
]

LAUNCHER = str(Path(sysconfig.get_path("scripts")) / "launcher")
IMPORTED = "import launcher; print(launcher.__file__)"
APP = """
import os, pathlib, time

def main(cfg):
    if "wait" in cfg:
        mark = pathlib.Path(cfg["wait"])
        mark.touch()
        while mark.exists():
            time.sleep(0.05)
    print("said", cfg)
    if "fail" in cfg:
        raise SystemExit(3)
"""


class Terminal:
    """A folder of its own, a cache of its own, and what waits there for this session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = WarmStore(str(folder / "cache/hydra-remote-launcher"))
        self.variables = {
            **{name: value for name, value in os.environ.items() if name != NO_WARM},
            "PATH": os.pathsep.join(self._programs(Path(one)) for one in os.environ["PATH"].split(os.pathsep)),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "TOKEN": "secret",
        }
        (folder / "app.py").write_text(APP)

    def _programs(self, programs: Path) -> str:
        """A folder with the same programs, but for those of batch systems."""
        if not any((programs / name).exists() for name in SUBMITTERS):
            return str(programs)
        made = self.folder / f"programs-{abs(hash(programs))}"
        made.mkdir()
        for program in programs.iterdir():
            if program.name not in SUBMITTERS:
                (made / program.name).symlink_to(program)
        return str(made)

    def start(self, *args: str, **how: Any) -> subprocess.Popen[str]:
        """Start a command."""
        usual: dict[str, Any] = {
            "env": self.variables,
            "cwd": self.folder,
            "text": True,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen([LAUNCHER, *args], **{**usual, **how})

    def call(self, *args: str, **how: Any) -> tuple[int, str, str]:
        """Run a command to its end."""
        with self.start(*args, **how) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def waiting(self) -> list[WarmRecord]:
        """Those that wait for commands."""
        return [record for record in self.store.records() if record.is_command and self.store.is_waiting(record)]

    def said(self) -> str:
        """The log of the one that waits."""
        (record,) = self.waiting()
        return Path(self.store.path(record.name, ".log")).read_text()

    def forks(self) -> list[int]:
        """The processes that the one that waits has forked: parents of commands."""
        return [int(line.split()[1]) for line in self.said().splitlines() if line.startswith("process ")]

    def served(self, *args: str, **how: Any) -> tuple[int, str, str]:
        """Run a command, which must be served."""
        before = self.said()
        found = self.call(*args, **how)
        said = self.said().removeprefix(before)
        assert "has forked a command" in said, said
        return found

    def refused(self, why: str, *args: str, **how: Any) -> tuple[int, str, str]:
        """Run a command, which must not be served for this reason."""
        before = self.said()
        found = self.call(*args, **how)
        said = self.said().removeprefix(before)
        assert why in said, said
        assert "has forked" not in said
        return found

    def close(self) -> None:
        """End all that waits."""
        for record in self.store.records():
            self.store.end(record)


@pytest.fixture(scope="module", autouse=True)
def session() -> None:
    """Its first process is in sight: that of these tests, if that of whoever started them is outside of this container or has ended."""
    if not os.getsid(0) or not Path(f"/proc/{os.getsid(0)}").exists():
        os.setsid()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One in which a run has left a process."""
    made = Terminal(tmp_path_factory.mktemp("terminal"))
    try:
        code, out, err = made.call("run", "app.py", "a=1")
        assert (code, out) == (0, "said {'a': 1}\n"), err
        wait_until(lambda: len(made.waiting()) == 1, 60)
        yield made
    finally:
        made.close()


def _without(terminal: Terminal) -> dict[str, str]:
    return {**terminal.variables, NO_WARM: "1"}


@pytest.mark.parametrize(
    "args",
    [
        ("runs",),
        ("runs", "--json"),
        ("show", "last"),
        ("table", "last"),
        ("logs", "last"),
        ("runs", "--nosuch"),
        ("show", "nosuch"),
    ],
)
def test_a_command_says_and_ends_the_same(terminal: Terminal, args: tuple[str, ...]) -> None:
    """On both streams, and by its exit code, also where it is refused."""
    assert terminal.served(*args) == terminal.call(*args, env=_without(terminal))


def test_a_run_has_its_own_folder_variables_and_umask(terminal: Terminal, tmp_path: Path) -> None:
    """Those of the command, and none of the process that waits."""
    (tmp_path / "other.py").write_text("import os\ndef main(cfg):\n    print(os.environ.get('OWN'), os.umask(0))\n")
    code, out, err = terminal.served(
        "run",
        str(tmp_path / "other.py"),
        "--env",
        "OWN",
        cwd=tmp_path,
        env={**terminal.variables, "OWN": "ü"},
        umask=0o027,
    )
    assert (code, out) == (0, "ü 23\n"), err
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 1
    assert (tmp_path / "outputs").stat().st_mode & 0o777 == 0o750


def test_a_job_that_fails_is_the_exit_code(terminal: Terminal) -> None:
    """As without."""
    assert terminal.served("run", "app.py", "fail=1")[0] == 1


def test_the_process_has_no_variable_of_the_user(terminal: Terminal) -> None:
    """Only those of which a Python is made: a secret would be in it for all its life."""
    (record,) = terminal.waiting()
    told = Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0")
    names = {one.partition(b"=")[0].decode() for one in told if one}
    assert "HOME" in names
    assert not names & {"TOKEN", "PATH", "USER", "XDG_STATE_HOME"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("LD_LIBRARY_PATH", "/nowhere"), ("PYTHONHASHSEED", "3"), ("LC_ALL", "C")],
)
def test_a_variable_that_python_or_an_import_reads_is_a_misfit(terminal: Terminal, name: str, value: str) -> None:
    """A fork would have the import of another value."""
    code, _, _ = terminal.refused("it ", "runs", env={**terminal.variables, name: value})
    assert code == 0


def test_other_limits_are_a_misfit(terminal: Terminal) -> None:
    """The fork would have those of the process that waits."""

    def limit() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))

    assert terminal.refused("other limits", "runs", preexec_fn=limit)[0] == 0


def test_another_open_file_is_a_misfit(terminal: Terminal) -> None:
    """A hosts file may be `/dev/fd/63`."""
    end, other = os.pipe()
    try:
        assert terminal.refused("more files", "runs", pass_fds=(end,))[0] == 0
    finally:
        os.close(end)
        os.close(other)


def test_another_session_is_not_asked(terminal: Terminal) -> None:
    """It has another terminal, or none."""
    before = terminal.said()
    assert terminal.call("runs", start_new_session=True)[0] == 0
    assert terminal.said() == before


def test_a_session_of_which_nothing_is_in_sight_is_left_nothing(terminal: Terminal, tmp_path: Path) -> None:
    """In a namespace of processes in which it has begun elsewhere, as a container's commands may have."""
    need_root()
    need_programs("unshare")
    own = {**terminal.variables, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = ["unshare", "--pid", "--fork", "--mount-proc", LAUNCHER, "run", "app.py"]
    ended = subprocess.run(program, cwd=terminal.folder, env=own, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "said {}\n"), ended.stderr
    assert not [one for one in WarmStore(str(tmp_path / "cache/hydra-remote-launcher")).records() if one.is_command]


def test_a_closed_pipe_ends_it_quietly(terminal: Terminal) -> None:
    """As `launcher runs | head -0`."""
    end, other = os.pipe()
    os.close(end)
    served = terminal.served("runs", stdout=other)
    assert served == terminal.call("runs", stdout=other, env=_without(terminal))
    os.close(other)


def test_a_closed_stream_starts_without(terminal: Terminal) -> None:
    """A descriptor that is not there cannot be sent."""
    before = terminal.said()
    assert terminal.call("runs", preexec_fn=lambda: os.close(0))[0] == 0
    assert "has forked" not in terminal.said().removeprefix(before)


def test_two_at_once(terminal: Terminal) -> None:
    """Each has a fork of its own."""
    before = len(terminal.forks())
    both = [terminal.start("runs", "--json") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said[0] == said[1]
    assert json.loads(said[0])["runs"]
    assert len(terminal.forks()) == before + 2


def _running(terminal: Terminal, mark: Path, **how: Any) -> tuple[subprocess.Popen[str], int]:
    """A run whose job waits, and the process that drives it."""
    before = terminal.forks()
    process = terminal.start("run", "app.py", f"wait={mark}", "--grace", "1", **how)
    wait_until(mark.exists, 60)
    (parent,) = set(terminal.forks()) - set(before)
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return process, int(children[0])


def _is_gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def test_a_command_that_is_killed_takes_its_fork_along(terminal: Terminal, tmp_path: Path) -> None:
    """So its run counts as one whose process has died, and can be taken up again."""
    process, fork = _running(terminal, tmp_path / "mark")
    process.kill()
    process.communicate(timeout=60)
    wait_until(_is_gone(fork), 60)
    (newest, *_) = json.loads(terminal.served("runs", "--json")[1])["runs"]
    assert newest["state"] == "died"
    assert terminal.served("runs")[0] == 0
    assert terminal.call("cancel", newest["run"])[0] in {0, 1, 130}
    (tmp_path / "mark").unlink()  # the job's own end, if nobody could cancel it


@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_it_once(terminal: Terminal, tmp_path: Path, number: int, to_group: bool) -> None:
    """Whether it is for the process or for its group: the job is asked to end, and the run ends in good order. A second one would end it at once."""
    process, _ = _running(terminal, tmp_path / "mark", process_group=0)
    group = process.pid
    (os.killpg if to_group else os.kill)(group, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "1 failed" in err or "cancelled" in err, err
    (newest, *_) = json.loads(terminal.served("runs", "--json")[1])["runs"]
    assert newest["state"] != "died"


def test_a_command_whose_fork_dies_by_a_signal_dies_by_it(terminal: Terminal, tmp_path: Path) -> None:
    """As a shell would see it without."""
    process, fork = _running(terminal, tmp_path / "mark")
    os.kill(fork, signal.SIGSEGV)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGSEGV


def test_it_is_stopped_and_goes_on_as_a_job_of_a_shell(terminal: Terminal, tmp_path: Path) -> None:
    """Ctrl-Z stops the group; the shell has to see that, and continues the group."""
    process, fork = _running(terminal, tmp_path / "mark", process_group=0)
    os.killpg(process.pid, signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert _state(fork) == "T"
    os.killpg(process.pid, signal.SIGCONT)
    _, status = os.waitpid(process.pid, os.WCONTINUED)
    assert os.WIFCONTINUED(status)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_c_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """In a session with a terminal, behind an interactive shell: the run is left in good order, and the shell goes on."""
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"],
        stdin=slave, stdout=slave, stderr=slave, cwd=terminal.folder, env={**terminal.variables, "PS1": "$ "},
    )  # fmt: skip
    os.close(slave)
    shown = bytearray()

    def type_in(text: str, until: str) -> None:
        at = len(shown)
        os.write(master, text.encode())
        _read_until(master, shown, until.encode(), at)

    try:
        type_in(f"{LAUNCHER} run app.py a=2; echo code-$?\n", "code-0")
        wait_until(lambda: any(f"-{shell.pid}-" in one.name for one in terminal.waiting()), 60)
        type_in(f"{LAUNCHER} run app.py wait={tmp_path}/mark --grace 1; echo end-$?\n", "\n")
        wait_until((tmp_path / "mark").exists, 60)
        record = next(one for one in terminal.waiting() if f"-{shell.pid}-" in one.name)
        assert "has forked a command" in Path(terminal.store.path(record.name, ".log")).read_text()
        type_in("\x03", "end-130")
        type_in("echo $((6*7))\n", "42")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)
    # Its session has ended.
    wait_until(_is_gone(record.pid), 60)


def _read_until(fd: int, shown: bytearray, text: bytes, at: int) -> None:
    deadline = time.monotonic() + 60
    while text not in shown[at:]:
        assert time.monotonic() < deadline, shown.decode(errors="replace")
        shown += os.read(fd, 1 << 12)


def test_a_socket_of_another_mode_is_not_asked(terminal: Terminal) -> None:
    """Somebody else could have put it there."""
    before = terminal.said()
    folder = Path(terminal.store.folder)
    folder.chmod(0o770)
    try:
        assert terminal.call("runs")[0] == 0
    finally:
        folder.chmod(0o700)
    assert terminal.said() == before


def test_a_socket_that_nobody_listens_at_costs_nothing(terminal: Terminal) -> None:
    """It is passed over, and nothing is said."""
    import socket

    path = terminal.store.path(f"command-{os.getsid(0)}-00000000", ".sock")
    folder = os.open(terminal.store.folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    os.close(folder)
    try:
        assert terminal.served("runs")[2] == ""
    finally:
        os.unlink(path)


def test_clean_names_it_and_ends_it(terminal: Terminal) -> None:
    """As hosts' processes. The next command starts by itself, and says nothing of it."""
    (record,) = terminal.waiting()
    _, out, _ = terminal.call("clean", "--json")
    (here,) = json.loads(out)["hosts"]
    assert f"warm/{record.name}" in here["chosen"]
    assert terminal.call("clean", "--yes")[0] == 0
    wait_until(_is_gone(record.pid), 60)
    assert terminal.waiting() == []
    code, _, err = terminal.call("runs")
    assert (code, err) == (0, "")


def test_a_changed_file_ends_it(terminal: Terminal, tmp_path: Path) -> None:
    """An upgraded launcher, or a package that is installed, is not served from before. `--warm 0` leaves none."""
    terminal.close()
    assert terminal.call("run", "app.py", "--warm", "0")[0] == 0
    assert [one for one in terminal.store.records() if one.is_command] == []
    assert terminal.call("run", "app.py")[0] == 0
    wait_until(lambda: len(terminal.waiting()) == 1, 60)
    (record,) = terminal.waiting()
    log = Path(terminal.store.path(record.name, ".log"))
    # The one that the command has imported: that of this process may be the folder of the repository.
    module = Path(subprocess.check_output([sys.executable, "-I", "-c", IMPORTED], text=True).strip())
    status = module.stat()
    os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    try:
        code, _, err = terminal.call("runs")
    finally:
        os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (code, err) == (0, "")
    # It has refused the command; or it has seen the change before, and has ended.
    said = log.read_text() if log.exists() else "has changed"
    assert "has changed" in said
    assert "has forked" not in said
