"""Warm interpreters: after a run a new process imports the app's packages again, and the next run starts in it, if nothing has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.demo.server import DemoServer, processes_with
from remote_agent.agent.zygotes.warm import NO_WARM, SUBMITTERS
from remote_agent.system.processes import is_alive
from remote_agent.system.waiting.warm_store import WarmRecord
from tests.remote_agent.agents import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="warm interpreters need Linux"),
]

#: The package notes which process imports it, and when.
HEAVY = """
import os

VERSION = 1
MODE = os.environ.get("MODE")
LOGIN = os.environ.get("SSH_CONNECTION")
with open({log!r}, "a") as file:
    file.write("{{}}\\n".format(os.getpid()))
"""
APP = """
import json
import os
import time

import heavy


def main(cfg):
    if "wait" in cfg:
        open(cfg.wait, "w").close()
        time.sleep(600)
    said = {"zygote": os.getppid(), "version": heavy.VERSION, "mode": heavy.MODE, "login": heavy.LOGIN, "now": os.environ.get("SSH_CONNECTION")}
    print("said", json.dumps(said), flush=True)
"""
HYDRA_APP = """
import json
import os

import hydra
from omegaconf import OmegaConf

import heavy

OmegaConf.register_new_resolver("ten", lambda value: NUMBER * value)


@hydra.main(config_path=".", config_name="config", version_base="1.3")
def main(cfg):
    print("said", json.dumps({"zygote": os.getppid(), "x": cfg.x}), flush=True)


if __name__ == "__main__":
    main()
"""
MAIN = "from launcher.cli.main import main; main()"
ROOT = Path(__file__).parents[2]


class Host:
    """A host over SSH whose Python has one package, and a project whose app imports it."""

    def __init__(self, folder: Path, server: DemoServer) -> None:
        self.folder = folder
        self.login("true")
        self.log = folder / "imports.log"
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        (self.packages,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
        self.project = folder / "project"
        self.project.mkdir()
        self.write_package("")
        self.write_app("")
        python = str(folder / "venv" / "bin" / "python")
        host = {"address": server.alias, "ssh_config": str(server.ssh_config), "python": python}
        (folder / "hosts.yaml").write_text(json.dumps({"far": host}))
        self.hosts = "--hosts", str(folder / "hosts.yaml")
        self.home = server.home
        #: Where this machine finds modules; it does not have the package.
        self.path = [str(ROOT)]
        self.warm_folder = self.home / ".cache" / "hydra-remote-launcher" / "warm"

    def write_package(self, more: str) -> None:
        """Install the package, with more code."""
        new = self.packages / "heavy.py.new"
        new.write_text(HEAVY.format(log=str(self.log)) + more)
        new.rename(self.packages / "heavy.py")

    def write_app(self, more: str) -> None:
        """Write the app, with more code."""
        (self.project / "app.py").write_text(APP + more)

    def login(self, lines: str) -> None:
        """Have the shell of a login do this first."""
        (self.folder / "login").write_text(lines + "\n")

    def imports(self) -> list[int]:
        """The processes that have imported the package, in their order."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run of one job, as a user does."""
        return self._launcher("run", "app.py:main", *self.hosts, *arguments)

    def _launcher(self, *words: str) -> subprocess.Popen[str]:
        folders = {"XDG_CACHE_HOME": str(self.folder / "cache"), "XDG_STATE_HOME": str(self.folder / "state")}
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.project,
            env={**os.environ, **folders, "PYTHONPATH": os.pathsep.join(self.path)},
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run one job; what it said."""
        return said_by(self.start(*arguments))

    def command(self, *words: str) -> str:
        """What another command says."""
        with self._launcher(*words) as process:
            out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        return out

    def told(self) -> list[dict[str, Any]]:
        """What the host told of the app's import, for each version of the code."""
        folder = self.folder / "cache" / "hydra-remote-launcher" / "imports"
        return [json.loads(path.read_text()) for path in folder.iterdir()]

    def records(self) -> list[WarmRecord]:
        """The interpreters that are alive, as their records say."""
        return [one for one in self.alive() if not one.is_fork_server]

    def alive(self) -> list[WarmRecord]:
        """All that wait and are alive."""
        found = []
        for path in self.warm_folder.glob("*/*.json"):
            record = WarmRecord(
                **{name: value for name, value in json.loads(path.read_text()).items() if name != "version"}
            )
            if is_alive(record.pid, record.started):
                found.append(record)
        return found

    def waiting(self) -> WarmRecord:
        """The one that waits, as soon as it does."""

        def look() -> WarmRecord | None:
            found = [one for one in self.records() if list(self.warm_folder.glob(f"*/{one.name}.sock"))]
            return found[0] if len(found) == 1 == len(self.records()) else None

        found: WarmRecord = wait_until(look, "a warm interpreter")
        return found


def said_by(run: subprocess.Popen[str]) -> dict[str, Any]:
    """What the job of a run said, when that is over."""
    out, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("said ")]
    found: dict[str, Any] = json.loads(line.removeprefix("said "))
    return found


@pytest.fixture(scope="module", autouse=True)
def _allowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing forbids warm interpreters here, even if this machine has a batch system: the host gets the PATH of the tests."""
    folders = os.environ["PATH"].split(os.pathsep)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(NO_WARM, raising=False)
        patch.setenv("PATH", os.pathsep.join(_without_submitters(Path(one), tmp_path_factory) for one in folders))
        yield


def _without_submitters(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the same programs, but for those that submit jobs to a batch system."""
    if not any((programs / name).exists() for name in SUBMITTERS):
        return str(programs)
    folder = tmp_path_factory.mktemp("programs")
    for program in programs.iterdir():
        if program.name not in SUBMITTERS:
            (folder / program.name).symlink_to(program)
    return str(folder)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host where no warm interpreter waits yet."""
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\n. {tmp_path}/login\nexec /bin/sh "$@"\n')
    shell.chmod(0o755)
    with DemoServer(shell=str(shell)) as server:
        made = Host(tmp_path, server)
        yield made
    for record in made.alive():
        os.kill(record.pid, signal.SIGKILL)


def test_the_next_run_starts_in_the_process_that_waits(host: Host) -> None:
    """It is a new process, not the zygote of the run before. The package is imported once more for the run after that, and no more often."""
    cold = host.run()
    first = host.waiting()
    assert host.imports() == [cold["zygote"], first.pid]
    assert first.pid != cold["zygote"]
    warm = host.run()
    second = host.waiting()
    assert warm["zygote"] == first.pid
    assert host.imports() == [cold["zygote"], first.pid, second.pid]


def test_one_process_forks_the_agents_of_later_runs(host: Host) -> None:
    """The first run leaves it. An agent that was forked from it leaves no other."""
    host.run()
    host.waiting()
    (first,) = [one for one in host.alive() if one.is_fork_server]
    wait_until(lambda: list(host.warm_folder.glob(f"*/{first.name}.sock")), "a fork server")
    host.run()
    host.waiting()
    assert [one for one in host.alive() if one.is_fork_server] == [first]
    (log,) = host.warm_folder.glob(f"*/{first.name}.log")
    assert log.read_text() == ""


def test_commands_name_it(host: Host) -> None:
    """A user can see that one waits, and which job was forked from one, and can end it."""
    host.run()
    host.waiting()
    assert "2 processes wait for the next run" in host.command("doctor", *host.hosts)
    host.run()
    assert "warm start" in host.command("show", "last#0")
    record = host.waiting()
    assert "processes that wait for the next run (their memory): 2" in host.command("clean", "--yes", *host.hosts)
    assert not is_alive(record.pid, record.started)
    assert not host.alive()


def test_a_hydra_app_has_its_own_config_and_resolvers(host: Host) -> None:
    """Hydra is ready in the process that waits, and what the app registers is of its own run. What the host tells of it is the same."""
    host.path.append(str(host.packages))
    (host.project / "config.yaml").write_text("x: ${ten:7}\nhydra:\n  run:\n    dir: out\n")
    (host.project / "app.py").write_text(HYDRA_APP.replace("NUMBER", "10"))
    cold = host.run()
    record = host.waiting()
    told = host.told()
    assert [one["resolvers"] for one in told] == [True]
    (host.project / "app.py").write_text(HYDRA_APP.replace("NUMBER", "20"))
    warm = host.run()
    assert (cold["x"], warm["x"], warm["zygote"]) == (70, 140, record.pid)
    assert host.told() == told * 2


def test_nothing_of_the_application_is_in_it(host: Host) -> None:
    """An edit of the app counts at once."""
    host.write_app("\nopen({!r}, 'a').write('x')\n".format(str(host.folder / "app-imports")))
    host.run()
    record = host.waiting()
    assert (host.folder / "app-imports").read_text() == "x"
    host.write_app("\nheavy.VERSION = 'edited'\n")
    warm = host.run()
    assert (warm["zygote"], warm["version"]) == (record.pid, "edited")


def test_what_a_login_sets_anew_does_not_hinder(host: Host) -> None:
    """The package did not see it, and the job sees that of its own run."""
    host.login("export SSH_CONNECTION=1")
    cold = host.run()
    record = host.waiting()
    host.login("export SSH_CONNECTION=2")
    warm = host.run()
    assert (cold["login"], cold["now"]) == ("1", "1")
    assert (warm["zygote"], warm["login"], warm["now"]) == (record.pid, None, "2")


CHANGES = {
    "package upgraded": lambda host: host.write_package("VERSION = 2\n"),
    "package added": lambda host: (host.packages / "other.py").write_text(""),
    "pth file added": lambda host: (host.packages / "new.pth").write_text("import sys\n"),
    "pth file edited": lambda host: (host.packages / "old.pth").write_text("import os, sys\n"),
    "package shadowed": lambda host: (host.project / "heavy.py").write_text("VERSION = 2\nMODE = LOGIN = None\n"),
    "variable": lambda host: host.login("export MODE=other"),
    "umask": lambda host: host.login("umask 007"),
    "limit": lambda host: host.login("ulimit -S -n 200"),
    "affinity": lambda host: host.login(f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >/dev/null"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_a_cold_start(name: str, host: Host) -> None:
    """A process that would have imported something else, or was started otherwise, is not taken; the run has the new state."""
    (host.packages / "old.pth").write_text("import os\n")
    host.run()
    record = host.waiting()
    CHANGES[name](host)
    cold = host.run()
    assert cold["zygote"] != record.pid
    assert cold["version"] == (2 if name in {"package upgraded", "package shadowed"} else 1)
    assert cold["mode"] == ("other" if name == "variable" else None)


def test_one_that_does_not_answer_is_a_cold_start_and_is_ended(host: Host) -> None:
    """A run waits for it for some seconds only, and ends it."""
    host.run()
    record = host.waiting()
    os.kill(record.pid, signal.SIGSTOP)
    assert host.run()["zygote"] != record.pid
    wait_until(lambda: not is_alive(record.pid, record.started), "its end")


def test_one_that_was_killed_is_a_cold_start(host: Host) -> None:
    """What it has left is removed."""
    host.run()
    record = host.waiting()
    os.kill(record.pid, signal.SIGKILL)
    assert host.run()["zygote"] != record.pid
    assert host.waiting().pid != record.pid
    found = {path.name.partition(".")[0] for path in host.warm_folder.glob("*/*") if not path.name.startswith("agent-")}
    assert found == {host.waiting().name}


def test_one_that_is_killed_while_it_serves_is_replaced(host: Host) -> None:
    """The run goes on with a zygote that starts cold."""
    host.run()
    record = host.waiting()
    host.write_app(f"\nif os.getpid() == {record.pid}:\n    os.kill(os.getpid(), 9)\n")
    assert host.run()["zygote"] != record.pid


def test_two_runs_at_once_share_none(host: Host) -> None:
    """One of them takes the process that waits, the other one starts cold."""
    host.run()
    record = host.waiting()
    runs = [host.start(), host.start()]
    zygotes = [said_by(run)["zygote"] for run in runs]
    assert len(set(zygotes)) == 2
    assert record.pid in zygotes


def test_secrets_make_a_cold_start_and_leave_nothing(host: Host) -> None:
    """No process that outlives the run has the values."""
    host.run()
    record = host.waiting()
    cold = host.run("--env", "MODE=secret")
    assert (cold["zygote"] != record.pid, cold["mode"]) == (True, "secret")
    assert [one.pid for one in host.records()] == [record.pid]


def test_none_is_used_or_left_with_warm_0(host: Host) -> None:
    """The option switches it off."""
    host.run()
    record = host.waiting()
    assert host.run("--warm", "0")["zygote"] != record.pid
    assert [one.pid for one in host.records()] == [record.pid]


def test_none_is_left_after_ctrl_c(host: Host) -> None:
    """Neither one of this run, nor one that waits from an earlier one."""
    host.run()
    record = host.waiting()
    here = host.folder / "here"
    run = host.start(f"wait={here}")
    wait_until(here.exists, "the start of the job")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=120)
    wait_until(lambda: not processes_with(f"HOME={host.home}"), "the end of all processes")
    assert not is_alive(record.pid, record.started)
    assert not host.records()


def test_a_package_that_starts_threads_leaves_none(host: Host) -> None:
    """A fork of such a process would break, so it is not kept."""
    host.write_package("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n")
    assert host.run()["version"] == 1
    assert host.run()["version"] == 1
    assert not host.records()


def test_an_app_that_no_longer_imports_a_package_starts_cold_next_time(host: Host) -> None:
    """Otherwise packages that nobody imports any more would be in every later run."""
    host.run()
    assert host.waiting()
    (host.project / "app.py").write_text(
        "import os\n\ndef main(cfg):\n    import json, sys\n    print('said', json.dumps('heavy' in sys.modules), flush=True)\n"
    )
    host.run()
    wait_until(lambda: not host.records(), "the end of the one that was taken")
    assert host.run() is False


def test_none_waits_in_an_allocation(host: Host) -> None:
    """A batch system's job ends with its processes."""
    host.login("export SLURM_JOB_ID=7")
    host.run()
    assert not host.warm_folder.exists()


def test_a_folder_that_cannot_be_written_costs_nothing(host: Host) -> None:
    """The run itself has succeeded, so it says nothing."""
    host.warm_folder.parent.mkdir(parents=True, exist_ok=True)
    host.warm_folder.write_text("in the way")
    assert host.run()["version"] == 1
    assert host.run()["version"] == 1
