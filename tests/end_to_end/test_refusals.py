"""Everything that is refused before anything is sent, in one table.

Rule: a row says what is given, through which interface, and what the message must name: the field or host, what is
allowed and, for a wrong name, the nearest one. Its only host counts logins, and there must be none.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import pytest
from packaging.version import Version

import launcher
from launcher import events
from launcher.cli import main as cli
from launcher.demo.server import DemoServer
from launcher.errors import UsageError
from tests.hydra.apps import python, write
from tests.remote_agent.agents import wait_until
from tests.requirements import need_python

APP = """
import socket, threading
import hydra

def train(cfg):
    return 1

def two(cfg, more):
    return 1

def nothing():
    return 1

class Locked:
    def __init__(self): self.guard = {"inner": [threading.Lock()]}
    def on_job_end(self, **kwargs): pass

class Connected:
    def __init__(self): self.line = socket.socket()
    def on_job_end(self, **kwargs): pass

class Reading:
    def __init__(self): self.source = open(__file__)
    def on_job_end(self, **kwargs): pass

class Iterating:
    def __init__(self): self.rest = (one for one in ())
    def on_job_end(self, **kwargs): pass

class Fine:
    def on_job_end(self, **kwargs): pass
"""
HYDRA_APP = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    return cfg.lr

if __name__ == "__main__":
    main()
"""
FILES = {
    "app_of_refusals.py": APP,
    "hydra_app_of_refusals.py": HYDRA_APP,
    "conf/config.yaml": "defaults: [_self_, {db: mysql}]\nlr: 1\nurl: ${db.user}\n",
    "conf/db/mysql.yaml": "user: me\n",
    "conf/db/broken.yaml": "usr: me\n",
    "empty.yaml": "",
    "unknown.yaml": "gpu1: {slotz: 2}\n",
    "port.yaml": "gpu1: {port: 70000}\n",
}


@dataclass(frozen=True)
class Row:
    """`given` are keywords of `launcher.run` (its task and config among them), or arguments of a command."""

    what: str
    said: tuple[str, ...]
    given: Any
    way: str = "python"
    callback: str = ""

    def __str__(self) -> str:
        return f"{self.way}: {self.what}"


def py(what: str, *said: str, callback: str = "", **given: Any) -> Row:
    """A row for Python."""
    return Row(what, said, given, callback=callback)


def cmd(what: str, line: str, *said: str) -> Row:
    """A row for the command line: `launcher LINE`."""
    return Row(what, said, line.split(), "command")


def plugin(what: str, line: str, *said: str) -> Row:
    """A row for Hydra: `python hydra_app.py -m LINE`."""
    return Row(what, said, line.split(), "plugin")


def by_hydra(version: str, row: Row) -> list[Row]:
    """Return the row if the installed Hydra has at least this version, because Hydra itself refuses."""
    return [row] if Version(hydra.__version__) >= Version(version) else []


ROWS = [
    # -- hosts
    py("a host that is an option", "host '-oProxyCommand=x'", "not starting with '-'", host="-oProxyCommand=x"),
    py("a host with shell characters", "host 'gpu1;reboot'", "letters, digits", host="gpu1;reboot"),
    py("a host with a command in it", "host '$(id)'", "letters, digits", host="$(id)"),
    py("a host with a space", "host 'gpu1 -l root'", "letters, digits", host="gpu1 -l root"),
    py("a user with shell characters", "'a;b' is not a user name", host="a;b@gpu1"),
    py("a password", "'me:***@gpu1': a host's name cannot have a password", "launcher connect", host="me:secret@gpu1"),
    py("no host in a name", "host ''", "'' is not a host name", hosts=[""]),
    py("a host of no kind", "host 5 is neither", "[user@]host[:port][/slots]", host=5),
    py("a host twice", "'gpu1' is named twice", "'gpu1/N'", hosts=["gpu1", "gpu1/2"]),
    py("a port of 0", "port 0 is not a number from 1 to 65535", host="gpu1:0"),
    py("a port out of range", "port 65536 is not a number from 1 to 65535", host="gpu1:65536"),
    py("a port that is a word", "port 'ssh' is not a number from 1 to 65535", host="gpu1:ssh"),
    py("a port in a hosts file", "port.yaml: host gpu1: port", "from 1 to 65535", hosts_file="port.yaml"),
    py("a hosts file without hosts", "empty.yaml: no hosts in it", "as `gpu1:`", hosts_file="empty.yaml"),
    py("no such hosts file", "nowhere.yaml", "cannot be read", hosts_file="nowhere.yaml"),
    py("an unknown key in a hosts file", "unknown.yaml: host gpu1", "'slotz'", "did you mean 'slots'?", hosts_file="unknown.yaml"),
    py("an unknown key of a host", "host gpu1", "'wrokdir'", "did you mean 'workdir'?", host={"name": "gpu1", "wrokdir": "/x"}),
    py("a relative workdir", "workdir: 'here' is neither absolute nor below '~/'", host={"name": "gpu1", "workdir": "here"}),
    py("no slots", "slots 0 is neither a number from 1 to 10000 nor 'auto'", host="gpu1/0"),
    py("negative slots", "slots '-2' is neither a number from 1 to 10000 nor 'auto'", host="gpu1/-2"),
    py("slots that are no number", "slots 1.5 is neither a number", host={"name": "gpu1", "slots": 1.5}),
    cmd("a host that is an option", "run app_of_refusals.py:train --host=-oProxyCommand=x", "not starting with '-'"),
    cmd("an unknown key in a hosts file", "run app_of_refusals.py:train --hosts unknown.yaml", "did you mean 'slots'?"),
    py("two hosts in one name", "host 'gpu1,gpu2'", "--host gpu1 --host gpu2 or hosts=[gpu1,gpu2]", hosts=["gpu1,gpu2"]),
    py("letters for hosts", "host 'no!host'", "letters, digits", hosts="no!host"),
    py("a host for a hosts file", "hosts file gpu1", "no such file", "--host gpu1 or hosts=[gpu1]", hosts_file="gpu1"),
    cmd("two hosts in one name", "run app_of_refusals.py:train --host gpu1/2,me@gpu2:22", "host 'gpu1/2,me@gpu2:22'", "--host gpu1 --host gpu2"),
    cmd("two hosts in one name, with ports", "run app_of_refusals.py:train --host gpu1:22,gpu2:22", "--host gpu1 --host gpu2"),
    plugin("a host with shell characters", "hydra.launcher.hosts=['gpu1;reboot']", "hydra.launcher", "'gpu1;reboot'", "letters, digits"),
    # -- options
    py("an unknown option", "unknown option 'timeot'", "did you mean 'timeout'?", timeot=3),
    py("a negative timeout", "timeout: -1 is not above zero", "90s, 30m", timeout=-1),
    py("a timeout that is no number", "timeout: 'soon' is not a duration", "90s, 30m", timeout="soon"),
    py("a timeout that is not a number", "timeout: nan is not above zero", "90s, 30m", timeout=float("nan")),
    py("a negative grace", "grace: -1 is below zero", "90s, 30m", grace=-1),
    py("negative retries", "retries: -1 is not a whole number from 0 to", retries=-1),
    py("retries of an unknown kind", "retries", "'time-out'", "did you mean 'timeout'?", retries={"time-out": 1}),
    py("a choice that there is not", "results: 'saef' is not one of trusted, safe, never; did you mean safe?", results="saef"),
    py("outputs from the root", "outputs: '/etc/*' leads out of the output directory", "relative pattern", outputs="/etc/*"),
    py("outputs from above", "outputs: 'a/../../b' leads out of the output directory", outputs=["*.txt", "a/../../b"]),
    py("outputs from the home", "outputs: '~/x' leads out of the output directory", outputs="~/x"),
    py("a variable's name", "env: 'A B' is not the name of a variable", "letters, digits and _", env={"A B": "hush"}),
    py("a variable that is not set", "forward_env: NOT_SET_HERE is not set here", forward_env=["NOT_SET_HERE"]),
    py("a policy of no callback", "on_error names 'log'", "the callbacks are none", on_error={"log": "warn"}),
    cmd("an unknown option", "run app_of_refusals.py:train --timeot 3", "--timeot", "--timeout"),
    cmd("a negative timeout", "run app_of_refusals.py:train --timeout=-1", "launcher: --timeout: ", "90s, 30m"),
    cmd("a size that is none", "run app_of_refusals.py:train --max-code-size 10MBB", "launcher: --max-code-size: '10MBB' is not a size"),
    cmd("a type that is none", "run app_of_refusals.py:train --allow-type 1x", "launcher: --allow-type: '1x'"),
    cmd("outputs from above", "run app_of_refusals.py:train --output ../x", "launcher: --output: '../x' leads out"),
    cmd("a policy that there is not", "run app_of_refusals.py:train --on-error log=wran", "launcher: --on-error log: 'wran'", "did you mean warn?"),
    cmd("a policy of no callback", "run app_of_refusals.py:train --on-error log=warn", "launcher: --on-error names 'log'"),
    cmd("a configured option that is not allowed", "multirun hydra_app_of_refusals.py hydra/launcher=remote hydra.launcher.timeout=-1", "launcher: hydra.launcher.timeout: -1 is not above zero"),
    plugin("an unknown option", "+hydra.launcher.timeot=3", "unknown option 'timeot'", "did you mean 'timeout'?"),
    plugin("a negative timeout", "hydra.launcher.timeout=-1", "hydra.launcher.timeout: -1 is not above zero"),
    plugin("a policy of no callback", "+hydra.launcher.on_error.log=warn", "hydra.launcher.on_error names 'log'"),
    plugin("outputs from above", "hydra.launcher.outputs=[../x]", "outputs: '../x' leads out of the output directory"),
    # -- callbacks
    py("a callback with a lock", "callback 'Locked'", "guard['inner'][0]", "is a lock", "on_job_start", callback="Locked"),
    py("a callback with a socket", "callback 'Connected'", "'line' is a socket", "__getstate__", callback="Connected"),
    py("a callback with an open file", "callback 'Reading'", "'source' is an open file", callback="Reading"),
    py("a callback with a generator", "callback 'Iterating'", "'rest' is a generator", callback="Iterating"),
    py("no callback at all", "is not a callback: it has none of on_run_start", callbacks=[object()]),
    py("one callback for a list", "is not a list of callbacks", callbacks=launcher.LogJobReturnCallback()),
    py("a class", "a class was given; give an instance", callbacks=[launcher.LogJobReturnCallback]),
    py("a callback without a target", "hydra.callbacks.x: it has no _target_", config={"hydra": {"callbacks": {"x": {"a": 1}}}}),
    *by_hydra("1.3.7", py("a target that Hydra blocks", "hydra.callbacks.x", "os.system", config={"hydra": {"callbacks": {"x": {"_target_": "os.system"}}}})),
    cmd("a callback that cannot be imported", "run app_of_refusals.py:train --callback nowhere_of_refusals:X", "--callback nowhere_of_refusals:X", "No module named"),
    *by_hydra("1.3.7", cmd("a target that Hydra blocks", "run hydra_app_of_refusals.py +hydra.callbacks.x._target_=os.system", "hydra.callbacks.x", "os.system")),
    *by_hydra("1.3.7", plugin("a target that Hydra blocks", "+hydra.callbacks.x._target_=os.system", "os.system")),
    # -- tasks
    py("no task at all", "the task is None", task=None),
    py("a task of two arguments", "two(cfg, more) cannot be called with one config", task="app_of_refusals:two"),
    py("a task of none", "nothing() cannot be called with one config", task="app_of_refusals:nothing"),
    py("a task that is none", "the task is an int; it must be callable with one config", task=5),
    py("a task that is not there", "no function 'trian'; did you mean 'train'?", task="app_of_refusals:trian"),
    py("a module that is not there", "'nowhere_of_refusals:x' cannot be imported", task="nowhere_of_refusals:x"),
    cmd("a task of two arguments", "run app_of_refusals.py:two", "app_of_refusals:two(cfg, more) cannot be called with one config"),
    cmd("a task that is not there", "run app_of_refusals.py:trian", "did you mean 'train'?"),
    # -- configs
    py("a config that is none", "the config is a list, not a mapping, dataclass or DictConfig", config=[1]),
    py("an unregistered resolver", "a: ${oc.evn:X}: there is no resolver 'oc.evn' (did you mean 'oc.env'?)", config={"a": "${oc.evn:X}"}),
    py("a dangling interpolation", "a: ${lrr}: the config has no lrr (did you mean 'lr'?)", config={"lr": 1, "a": "${lrr}"}),
    cmd("an override that cannot be parsed", "run hydra_app_of_refusals.py lr=[1", "lr=[1"),
    cmd("an unknown key", "run hydra_app_of_refusals.py lrr=1", "lrr", "+lrr=1", "did you mean 'lr'?"),
    cmd("an unknown choice of a group", "multirun hydra_app_of_refusals.py db=mysql,oracle", "db/oracle", "mysql"),
    cmd("an unregistered resolver", "run hydra_app_of_refusals.py lr=${oc.evn:X}", "there is no resolver 'oc.evn' (did you mean 'oc.env'?)"),
    cmd("a dangling interpolation of one choice", "multirun hydra_app_of_refusals.py db=mysql,broken", "with db=broken", "url: ${db.user}", "did you mean 'db.usr'?"),
    cmd("a sweep without `multirun`", "run hydra_app_of_refusals.py lr=1,2", "launcher multirun"),
    plugin("an unregistered resolver", "lr=${oc.evn:X}", "there is no resolver 'oc.evn' (did you mean 'oc.env'?)"),
    plugin("a dangling interpolation", "db=broken,mysql", "the config of job 0 does not resolve", "did you mean 'db.usr'?"),
    # -- folders
    py("a folder that cannot be made", "results cannot be written to /proc/x", "folder=", folder="/proc/x"),
    cmd("a folder that cannot be made", "run app_of_refusals.py:train --folder /proc/x", "results cannot be written to /proc/x", "--folder"),
    # -- code
    py("too much code", "over the cap of 0.0 MiB (max_code_size)", ".launcherignore", max_code_size=10),
]  # fmt: skip


@dataclass
class Watched:
    """A host to which nothing may be sent: no user name, no command, nothing of the application."""

    server: DemoServer
    folder: Path
    spec: dict[str, Any] = field(default_factory=dict)

    def logins(self) -> int:
        """Return how many logins have begun, after all connections have ended."""
        wait_until(lambda: not self.server._connections, "the connections to end")
        return self.server.logins


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    """A server that speaks SSH, so that a client could send more than a handshake."""
    with DemoServer("watched") as made:
        yield made


@pytest.fixture
def watched(server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The watched host, and the project around the working folder."""
    folder = write(tmp_path / "project", FILES)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    known = set(sys.modules)
    spec = {"address": "watched", "ssh_config": str(server.ssh_config)}
    (folder / "watched.yaml").write_text(f"watched: {spec}\n")
    yield Watched(server, folder, {"name": "watched", **spec})
    for name in set(sys.modules) - known:
        if name.endswith("_of_refusals"):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_is_refused_by_name_and_nothing_is_sent(
    row: Row, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names what is wrong and what is allowed. The host has seen at most a handshake."""
    before = watched.logins()
    said = {"python": by_python, "command": by_command, "plugin": by_plugin}[row.way](row, watched, capsys)
    for part in row.said:
        assert part in said, said
    assert "hush" not in said
    assert watched.logins() == before
    assert not list(watched.folder.glob("*/**/journal.sqlite")), "the run has not begun"


def by_python(row: Row, watched: Watched, capsys: pytest.CaptureFixture[str]) -> str:
    given = {"task": "app_of_refusals:train", "config": {}, **row.given}
    if not {"host", "hosts", "hosts_file"} & set(given):
        given["host"] = watched.spec
    if row.callback:
        module: Any = __import__("app_of_refusals")
        given["callbacks"] = [getattr(module, row.callback)()]
    task, config = given.pop("task"), given.pop("config")
    with pytest.raises(UsageError) as refused:
        if "hosts" in given or "hosts_file" in given:
            launcher.multirun(task, [config], **given)
        else:
            launcher.run(task, config, **given)
    return str(refused.value)


def by_command(row: Row, watched: Watched, capsys: pytest.CaptureFixture[str]) -> str:
    has_hosts = any(one.startswith("--host") for one in row.given)
    with pytest.raises(SystemExit) as left:
        cli.main([*row.given, *([] if has_hosts else ["--hosts", "watched.yaml"])])
    assert left.value.code == 2
    return capsys.readouterr().err


def by_plugin(row: Row, watched: Watched, capsys: pytest.CaptureFixture[str]) -> str:
    arguments = ["-m", "hydra/launcher=remote", *row.given]
    if not any(one.startswith("hydra.launcher.hosts") for one in row.given):
        arguments.append("hydra.launcher.hosts_file=watched.yaml")
    done = python("hydra_app_of_refusals.py", *arguments, cwd=watched.folder, check=False)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.slow
@pytest.mark.pythons
def test_code_by_value_is_refused_by_another_python(watched: Watched) -> None:
    """Only the host knows its Python, so this is checked before the task is loaded or the application imported."""
    other = "3.12" if sys.version_info[:2] != (3, 12) else "3.11"
    spec = {"name": "other", "address": "local", "python": str(need_python(other))}
    seen: list[events.Event] = []
    by_value = lambda cfg: 1
    returned = launcher.run(by_value, {}, host=spec, folder=watched.folder / "out", observers=[seen.append])
    assert returned.error is not None
    assert (returned.error.kind, returned.error.type) == ("config", "PythonVersionMismatch")
    for part in ("is pickled by value: ", "<lambda>", "same minor version of Python", f"other has {other}", "--python"):
        assert part in returned.error.message
    assert not [event for event in seen if isinstance(event, events.AttemptStarted)]


@pytest.mark.slow
def test_a_correct_run_reaches_the_host(watched: Watched) -> None:
    """This checks the table itself: the same run without a mistake logs in, and runs."""
    before = watched.logins()
    returned = launcher.run("app_of_refusals:train", {}, host=watched.spec, folder=watched.folder / "out")
    assert returned.return_value == 1
    assert watched.logins() > before


def test_every_kind_of_refusal_is_there() -> None:
    """No row comes twice, and each interface has some."""
    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert {way for way, _ in itertools.groupby(sorted(row.way for row in ROWS))} == {"python", "command", "plugin"}
