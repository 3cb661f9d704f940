"""`launcher run` shows a job as `python my_app.py` would, here and over SSH, in a pipe and on a terminal.

So do other commands.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.demo.server import DemoServer
from tests.terminals import on_terminal

ROOT = Path(__file__).parents[2]
MAIN = "from launcher.cli.main import main; main()"

APP = r'''
import os
import sys
import time


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)


def mixed(cfg):
    """All that a stream may be: lines, a part of one, a bar, bytes that are no text, and none of it ends in a newline."""
    print("a line")
    print("an error", file=sys.stderr)
    for percent in (10, 20):
        print(f"\r {percent}%", end="", flush=True)
    sys.stdout.flush()
    os.write(1, bytes(range(256)) * 40)
    os.write(2, b"\xff\xfe")
    print("no newline", end="")


def much(cfg):
    for number in range(cfg.mb):
        os.write(1, number.to_bytes(4, "big") * (1 << 18))


def asks(cfg):
    print("Go on? ", end="", flush=True)
    wait_for(cfg.answer)
    print("yes")


def odd(cfg):
    print("\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07plain")
    os.write(1, b"\x1b[3")
    wait_for(cfg.answer)
    os.write(1, b"2mgreen\x1b[0m gr\xc3")
    time.sleep(0.3)
    os.write(1, b"\xbcn\nno newline")


def reads(cfg):
    print("read:", repr(sys.stdin.read()))


def fails(cfg):
    print("before")
    raise ValueError("as asked")


class Ended:
    """Leaves a file when the run's end hook fires."""

    def on_run_end(self, config, **kwargs):
        open("ended", "w").close()


class Marks:
    """Leaves a file for each hook that fired on the controller."""

    def on_job_return(self, config, job_return, **kwargs):
        print("hook: on_job_return")
        open("returned", "w").close()

    def on_run_end(self, config, **kwargs):
        print("hook: on_run_end")
        open("ended", "w").close()
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_app.py").write_text(APP)
    (folder / ".gitignore").write_text("*\n!my_app.py\n")
    return folder


@pytest.fixture(params=["local", pytest.param("embedded", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, project: Path) -> list[str]:
    """The options for a host: none for this machine, or one over SSH."""
    if request.param == "local":
        return []
    server: DemoServer = request.getfixturevalue("demo_server")
    host = f"far: {{address: {server.alias}, ssh_config: {server.ssh_config}, python: {sys.executable}}}\n"
    (project / "hosts.yaml").write_text(host)
    return ["--hosts", "hosts.yaml"]


def launcher(*arguments: str) -> list[str]:
    return [sys.executable, "-c", MAIN, *arguments]


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `launcher` with both streams in pipes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(project)

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(launcher(*arguments), capture_output=True, timeout=120, check=False)

    return run


def plain(task: str, project: Path) -> subprocess.CompletedProcess[bytes]:
    """Call the same function with Python itself."""
    return subprocess.run(
        [sys.executable, "-c", f"import my_app; my_app.{task}(None)"], cwd=project, capture_output=True
    )


# -- in a pipe -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pipe_gets_what_python_would_give_it(
    run: Callable[..., subprocess.CompletedProcess[bytes]], project: Path, where: list[str]
) -> None:
    """`stdout` is the same, byte for byte. stderr has the job's output and our summary."""
    done = run("run", "my_app.py:mixed", *where)
    alone = plain("mixed", project)
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone.stdout
    assert alone.stderr in done.stderr
    assert b"1 completed, 0 failed" in done.stderr


@pytest.mark.slow
def test_a_hundred_megabytes_are_shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is shown without a larger cap, and the controller's memory does not grow with it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    took = (
        "import resource, subprocess, sys, hashlib\n"
        "process = subprocess.Popen([*sys.argv[2:], 'mb=' + sys.argv[1]], stdout=subprocess.PIPE)\n"
        "size = sum(len(data) for data in iter(lambda: process.stdout.read(1 << 20), b''))\n"
        "process.wait()\n"
        "print(process.returncode, size, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )

    def measured(mb: int) -> list[int]:
        command = [sys.executable, "-c", took, str(mb), *launcher("run", "-q", "my_app.py:much")]
        done = subprocess.run(command, cwd=project, capture_output=True, timeout=120, check=True)
        return [int(word) for word in done.stdout.split()]

    small, large = measured(1), measured(100)
    assert small[:2] == [0, 1 << 20]
    assert large[:2] == [0, 100 << 20]
    assert large[2] - small[2] < 60_000


@pytest.mark.slow
def test_json_leaves_stdout_to_the_report(
    run: Callable[..., subprocess.CompletedProcess[bytes]], project: Path
) -> None:
    """Both of the job's streams go to stderr then."""
    done = run("run", "my_app.py:mixed", "--json")
    assert json.loads(done.stdout)["completed"] == 1
    assert plain("mixed", project).stdout[-9:] in done.stderr
    assert bytes(range(128, 256)) in done.stderr


@pytest.mark.slow
def test_no_live_hides_the_jobs_output(run: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """The output is still kept."""
    done = run("run", "my_app.py:mixed", "--no-live", "--folder", "out")
    assert done.stdout == b""
    assert b"an error" not in done.stderr
    assert Path("out/.launcher/stdout").read_bytes().startswith(b"a line\n")


@pytest.mark.slow
def test_a_failed_job_shows_its_traceback_once(run: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """The exit code is 1. The traceback is on stderr once, although our report would have it, too."""
    done = run("run", "my_app.py:fails")
    assert (done.returncode, done.stdout) == (1, b"before\n")
    assert done.stderr.count(b'raise ValueError("as asked")') == 1
    assert b"0 completed, 1 failed" in done.stderr
    assert b'raise ValueError("as asked")' in run("run", "my_app.py:fails", "--no-live").stderr


@pytest.mark.slow
def test_standard_input_is_empty(run: Callable[..., subprocess.CompletedProcess[bytes]], where: list[str]) -> None:
    """Typed input does not reach a job. It gets the end of file at once."""
    done = run("run", "my_app.py:reads", *where)
    assert done.stdout == b"read: ''\n"


@pytest.mark.slow
def test_a_closed_pipe_ends_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `launcher run ... | head -1`, the job goes on, the hooks fire, and the exit code is the run's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ["run", "my_app.py:asks", f"answer={project / 'answer'}", "--callback", "my_app:Marks"]
    with subprocess.Popen(launcher(*arguments), cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"Go on?"
        process.stdout.close()
        (project / "answer").touch()
        stderr = process.communicate(timeout=90)[1]
    assert process.returncode == 0, stderr
    assert b"1 completed" in stderr
    assert b"BrokenPipe" not in stderr
    assert (project / "returned").exists()
    assert (project / "ended").exists()


@pytest.mark.slow
def test_a_reader_that_does_not_read_holds_up_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's hooks fire while eight megabytes wait for a pager, which gets all of them."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with subprocess.Popen(
        launcher("run", "-q", "my_app.py:much", "mb=8", "--callback", "my_app:Ended"),
        cwd=project,
        stdout=subprocess.PIPE,
    ) as process:
        guard = threading.Timer(90, process.kill)
        guard.start()
        wait_for((project / "ended").exists, process)
        assert process.stdout is not None
        said = process.stdout.read()
        guard.cancel()
    assert process.returncode == 0
    assert len(said) == 8 << 20


def wait_for(is_there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not is_there():
        assert process.poll() is None
        threading.Event().wait(0.02)


# -- on a terminal ---------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.slow
@pytest.mark.usefixtures("terminal_env")
def test_a_part_of_a_line_is_there_while_the_job_runs(project: Path, where: list[str]) -> None:
    """A question without a newline is visible before it is answered."""
    command = launcher("run", "my_app.py:asks", f"answer={project / 'answer'}", *where)
    with on_terminal(command, project) as terminal:
        terminal.read_until(lambda seen: b"Go on? " in seen)
        assert b"yes" not in terminal.seen
        (project / "answer").touch()
        assert terminal.end() == 0
    assert b"Go on? yes\r\n" in terminal.seen


@pytest.mark.slow
@pytest.mark.usefixtures("terminal_env")
def test_a_terminal_gets_colours_and_no_other_code_of_a_job(project: Path, where: list[str]) -> None:
    """This also holds if a sequence or a character comes in two parts. Our messages begin a new line."""
    command = launcher("run", "my_app.py:odd", f"answer={project / 'answer'}", *where)
    with on_terminal(command, project) as terminal:
        terminal.read_until(lambda seen: b"plain" in seen)
        (project / "answer").touch()
        assert terminal.end() == 0
    said = terminal.seen[terminal.seen.index(b"\x1b[31mred") :]
    job, _, ours = said.partition(b"no newline")
    assert job.decode() == "\x1b[31mred\x1b[0m plain\r\n\x1b[32mgreen\x1b[0m grün\r\n"
    assert ours.startswith(b"\r\n")
    assert b"1 completed, 0 failed" in ours


@pytest.mark.slow
@pytest.mark.usefixtures("terminal_env")
def test_progress_is_on_the_terminal_while_the_job_goes_to_a_file(project: Path) -> None:
    """With `launcher run ...

    > file`, our messages are visible, with the time, and the file has only the job's bytes.
    """
    file = project / "file"
    with file.open("wb") as out:
        command = launcher("run", "my_app.py:asks", f"answer={project / 'answer'}", "--callback", "my_app:Marks")
        with on_terminal(command, project, stdout=out.fileno()) as terminal:
            terminal.read_until(lambda seen: b"job 0" in seen)
            (project / "answer").touch()
            assert terminal.end() == 0
    assert file.read_bytes() == b"Go on? yes\nhook: on_job_return\nhook: on_run_end\n"
    assert re.search(rb"\d s", terminal.seen)
    assert b"Go on?" not in terminal.seen


# -- from Python -----------------------------------------------------------------------------------------------------

SCRIPT = """
import sys

import launcher


def train(cfg):
    print("the job prints", cfg.lr)
    print("and complains", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        launcher.run(train, {"lr": 1}, live=True)
    elif sys.argv[1] == "multirun":
        launcher.multirun(train, [{"lr": 1}, {"lr": 2}], live=True)
    elif sys.argv[1] == "session":
        with launcher.Session.open(live=True) as session:
            session.submit(train, {"lr": 1}).result()
    else:
        launcher.run(train, {"lr": 1})
    print("after")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "stdout", "stderr"),
    [
        ("run", ["the job prints 1", "after"], ["and complains"]),
        (
            "multirun",
            [
                "[0 local] and complains",
                "[0 local] the job prints 1",
                "[1 local] and complains",
                "[1 local] the job prints 2",
                "after",
            ],
            [],
        ),
        ("session", ["[0 local] and complains", "[0 local] the job prints 1", "after"], []),
        ("quiet", ["after"], []),
    ],
)
def test_live_output_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stdout: list[str], stderr: list[str]
) -> None:
    """With live output, `run` shows the job's own streams, and others show lines with the job's number, all before the
    call returns. By default nothing is shown.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", what], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stderr.splitlines() == stderr
    assert sorted(done.stdout.splitlines()[:-1]) == stdout[:-1]
    assert done.stdout.splitlines()[-1] == "after"


# -- runs that were left ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_attach_shows_what_the_jobs_print(
    run: Callable[..., subprocess.CompletedProcess[bytes]], project: Path
) -> None:
    """It shows them from the beginning, like the run itself, unless the user says otherwise."""
    left = run("run", "my_app.py:asks", f"answer={project / 'answer'}", "--detach")
    assert left.returncode == 0, left.stderr
    assert left.stdout == b""
    (project / "answer").touch()
    done = run("attach")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"Go on? yes\n"


@pytest.mark.slow
def test_attach_to_a_sweep_shows_lines_when_asked_to(
    run: Callable[..., subprocess.CompletedProcess[bytes]], project: Path
) -> None:
    """This needs `--live`, as with `multirun`."""
    answer = f"answer={project / 'answer'}"
    left = run("multirun", "my_app.py:asks", answer, "x=1,2", "--host", "local/2", "--detach")
    assert left.returncode == 0, left.stderr
    (project / "answer").touch()
    done = run("attach", "--live")
    assert done.returncode == 0, done.stderr
    assert b"[0 local] Go on? yes\n" in done.stdout
    assert b"[1 local] Go on? yes\n" in done.stdout


@pytest.mark.slow
def test_attach_shows_a_run_that_another_process_drives(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`attach` in another window shows the output so far and what follows."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = launcher("run", "my_app.py:asks", f"answer={project / 'answer'}", "--folder", "out")
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
        guard = threading.Timer(90, driver.kill)
        guard.start()
        assert driver.stdout is not None
        assert driver.stdout.read(6) == b"Go on?"
        with subprocess.Popen(
            launcher("attach"), cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as watching:
            assert watching.stdout is not None
            assert watching.stdout.read(6) == b"Go on?"
            (project / "answer").touch()
            assert watching.stdout.read() == b" yes\n"
        assert driver.stdout.read() == b" yes\n"
        guard.cancel()
    assert watching.returncode == 0


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_options_of_the_app_count(run: Callable[..., subprocess.CompletedProcess[bytes]], project: Path) -> None:
    """`run`'s own caps are overridden by those of the app's `hydra.launcher`, and by the user's."""
    (project / "hydra_app.py").write_text(
        "import hydra\n\n\n"
        "@hydra.main(version_base=None, config_path='conf', config_name='config')\n"
        "def main(cfg):\n    print('x' * 3000)\n\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    (project / "conf").mkdir()
    (project / "conf" / "config.yaml").write_text(
        "defaults: [_self_, {override hydra/launcher: remote}]\nhydra: {launcher: {max_output_bytes: 1000}}\n"
    )
    cut = run("run", "hydra_app.py")
    assert cut.stdout.startswith(b"x" * 1000 + b"\n[hydra-remote-launcher: stdout was cut here")
    assert b"stdout was cut" in cut.stderr
    assert run("run", "hydra_app.py", "--max-output-bytes", "1MiB").stdout == b"x" * 3000 + b"\n"
