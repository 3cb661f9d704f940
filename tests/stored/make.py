"""Makes what a version of this launcher stores: runs of each kind, finished, killed and left, with what their host has of them.

    git worktree add --detach /tmp/that-version COMMIT
    python3.11 -m venv /tmp/that-venv && /tmp/that-venv/bin/pip install -c constraints.txt /tmp/that-version asyncssh hydra-zen
    /tmp/that-venv/bin/python tests/stored/make.py tests/stored/COMMIT.tar.xz

Rule: it is run by the Python of the version that is to make it, and asks of that only what users do: commands, `launcher.multirun` and
`DemoServer`. What is stored names absolute paths, so all of it lies in one folder, ROOT, here and in the tests that put it there again
(`tests/stored/places.py`). Code and configs of the applications are a part of it, for runs go on in what they began with. The runs:

    command         launcher run of a plain function, over SSH, results=safe, returned
    app             launcher multirun of a Hydra app, over SSH; one job failed
    plugin          python my_app.py -m hydra/launcher=remote, on this machine
    zen             the same of an app of hydra-zen
    script          launcher.multirun in a script: task and callback by value, over SSH; one job failed; its JobReturns in returns.pickle
    local           the same on this machine
    again           launcher reproduce of a job of app
    killed_app      app: job 1 returned; job 2 ended on the host, and job 3 ran there when it lost its power, after its controller was
                    killed; job 4 waited
    killed_script   script: likewise
    killed_plain    launcher multirun of a plain function: likewise
    detached        app, left to its host, where all has ended
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.demo.server import DemoServer

HERE = Path(__file__).resolve().parent
ROOT = Path("/tmp/hydra-remote-launcher-stored")
HOST = "there"
#: What is made anew where it is missing, and is as large as this launcher; and what is of one machine.
_LEFT_OUT = ("agents", "bundles", "spares", "__pycache__", "home", "bin", "ssh_config", "known_hosts")


def until(what: str, look: Callable[[], object]) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + 120
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited for {what}")
        threading.Event().wait(0.02)


def environment() -> dict[str, str]:
    """What the controller is started with: nothing of the user's."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(ROOT / "home"),
        "XDG_STATE_HOME": str(ROOT / "state"),
        "XDG_CACHE_HOME": str(ROOT / "cache"),
        "LANG": "C.UTF-8",
    }


def start(*command: str) -> subprocess.Popen[bytes]:
    """A controller, in the project's folder."""
    return subprocess.Popen(
        command, cwd=ROOT / "project", env=environment(), start_new_session=True, stdin=subprocess.DEVNULL
    )


def call(*command: str, code: int = 0) -> None:
    """A controller that comes to its end."""
    print("$", *command, flush=True)
    done = start(*command).wait()
    if done != code:
        raise SystemExit(f"{command} ended with {done}")


def told(text: str) -> bool:
    """A hook or a job has told this."""
    file = ROOT / "told"
    return file.exists() and text in file.read_text().splitlines()


def launcher(command: str, app: str, name: str, *more: str) -> list[str]:
    """A command line for a run over SSH."""
    where = ["--hosts", str(ROOT / "hosts.yaml"), "--folder", f"../runs/{name}"]
    return ["launcher", command, app, *where, *more]


def kill_in_the_middle(name: str, *command: str) -> None:
    """Kill the controller when one job has returned, and let the host end the next one: the one after it is running then."""
    (ROOT / "told").unlink(missing_ok=True)
    gate = ROOT / f"gate-{name}"
    Path(f"{gate}.1").touch()
    print("$", *command, flush=True)
    controller = start(*command)
    until("the first job's hook", lambda: any(told(f"on_job_return 0 {known} COMPLETED") for known in (1, 2)))
    until("the second job", lambda: told("ran 2"))
    # What the last job is told must have arrived: it is kept on the host before the second one starts.
    os.killpg(controller.pid, signal.SIGKILL)
    controller.wait()
    Path(f"{gate}.2").touch()
    until("the third job", lambda: told("ran 3"))


def make_runs() -> None:
    """Make them all, in turn."""
    with DemoServer(HOST, environment=host_environment()) as server:
        (ROOT / "ssh_config").write_text(server.ssh_config.read_text())
        call(
            *launcher(
                "run", "plain_app.py:main", "command", "--results", "safe", "--callback", "telling:Telling", "+n=3"
            )
        )
        call(*launcher("multirun", "my_app.py", "app", "n=1,-2,3"), code=1)
        for name, app in {"plugin": "my_app.py", "zen": "zen_app.py"}.items():
            call(
                sys.executable, app, "-m", "hydra/launcher=remote", "n=1,2", f"hydra.sweep.dir=../runs/{name}",
                f"hydra.launcher.python={ROOT}/bin/python3",
            )  # fmt: skip
        call(sys.executable, "script.py", "script", HOST, str(ROOT / "runs/script"), "1", "-2", "3")
        call(sys.executable, "script.py", "local", "local", str(ROOT / "runs/local"), "1", "-2", "3")
        call("launcher", "reproduce", "../runs/app#2", "--folder", "../runs/again")
        (ROOT / "told").unlink()
        call(*launcher("multirun", "my_app.py", "detached", "--detach", "n=1,2"))
        until("the end of what was left", lambda: told("on_job_end 2 1 COMPLETED"))
    for name, command in {
        "killed_app": launcher("multirun", "my_app.py", "killed_app", f"gate={ROOT}/gate-killed_app", "n=1,2,3,4"),
        "killed_script": [sys.executable, "script.py", "killed_script", HOST, str(ROOT / "runs/killed_script"), *"1234"],
        "killed_plain": launcher(
            "multirun", "plain_app.py:main", "killed_plain", "--callback", "telling:Telling",
            f"+gate={ROOT}/gate-killed_plain", "+n=1,2,3,4",
        ),
    }.items():  # fmt: skip
        # When the server is stopped, its host loses its power.
        with DemoServer(HOST, environment=host_environment()) as server:
            (ROOT / "ssh_config").write_text(server.ssh_config.read_text())
            kill_in_the_middle(name, *command)


def host_environment() -> dict[str, str]:
    """Where the host keeps things; its python3 is the one that runs this."""
    return {
        "XDG_STATE_HOME": str(ROOT / "host/state"),
        "XDG_CACHE_HOME": str(ROOT / "host/cache"),
        "PATH": os.pathsep.join([str(ROOT / "bin"), os.environ.get("PATH", os.defpath)]),
    }


def lay_out() -> None:
    """The folder with nothing in it but the applications."""
    shutil.copytree(HERE / "project", ROOT / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (ROOT / "runs").mkdir()
    lay_out_python()


def lay_out_python() -> None:
    """What is of this machine: the Python that jobs run under, an empty home, and who is the host."""
    for name in ("home", "bin"):
        (ROOT / name).mkdir()
    (ROOT / "hosts.yaml").write_text(
        f"hosts:\n  - {{name: {HOST}, slots: 1, ssh_config: {ROOT}/ssh_config, python: {ROOT}/bin/python3}}\n"
    )
    python = ROOT / "bin/python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)


def pack(target: Path) -> None:
    """Write the archive: names sorted, without owners and times, so that it is the same for the same files."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if Path(info.name).name in _LEFT_OUT or not (info.isreg() or info.isdir() or info.issym()):
            return None
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name in ("project", "runs", "state", "cache", "host"):
            archive.add(ROOT / name, name, filter=plain)


@contextlib.contextmanager
def own_root() -> Iterator[None]:
    """Have the folder for oneself: others wait. It is gone afterwards."""
    with Path(f"{ROOT}.{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(ROOT, ignore_errors=True)
        ROOT.mkdir(mode=0o700)
        try:
            yield
        finally:
            shutil.rmtree(ROOT)


def main() -> None:
    """Make the archive that is named."""
    target = Path(sys.argv[1]).resolve()
    with own_root():
        lay_out()
        make_runs()
        pack(target)
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main()
