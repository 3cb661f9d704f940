"""`results=safe` in whole runs: what hosts made is read as plain data, and no unpickler ever gets a byte of it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import launcher
from launcher.demo.server import DemoServer
from launcher.errors import ResultNotDecoded, ValueNotPlain
from launcher.runs.journal import FOLDER, Journal, JournalReader, StoredResult
from remote_agent.protocol.result_parts import NO_PARTS, PICKLED, Part

APP = '''
import enum
from dataclasses import dataclass

import launcher


class Color(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: float

    def __post_init__(self):
        self.x += 1


class Reads(launcher.Callback):
    """Reads all that came back, here."""

    def on_job_return(self, config, job_return, **kwargs):
        for name in ("return_value", "cfg", "hydra_cfg"):
            try:
                repr(getattr(job_return, name))
            except Exception as error:
                print(type(error).__name__)


def task(cfg):
    mark = "made-on" + "-the-host"
    if cfg.what == "plain":
        cfg.edited = "${oc.env:HOME}" + mark
        return {"loss": 0.5, "mark": mark}
    if cfg.what == "class":
        return [Color.RED, Point(mark and 1)]
    if cfg.what == "raises":
        raise ValueError(mark)
    if cfg.what == "none":
        return None
    if cfg.what == "long":
        return [mark] * 20_000
    return open
'''

#: Notes in a file what any unpickler of the process is given.
WATCH = r"""
import io, os, pickle, sys

seen = open(os.environ["UNPICKLED"], "ab", 0)
real = pickle.Unpickler


class Watched(real):
    def __init__(self, file, *arguments, **more):
        data = file.read()
        seen.write(data)
        super().__init__(io.BytesIO(data), *arguments, **more)


def loads(data, /, **more):
    return Watched(io.BytesIO(data), **more).load()


pickle.Unpickler, pickle.loads, pickle.load = Watched, loads, lambda file, **more: Watched(file, **more).load()
pickle._Unpickler, pickle._loads, pickle._load = Watched, loads, pickle.load
import _pickle

_pickle.Unpickler, _pickle.loads, _pickle.load = Watched, loads, pickle.load
import cloudpickle

cloudpickle.loads = cloudpickle.cloudpickle.loads = loads
"""

RUN = """
import json, sys
import launcher
import safe_app
from launcher.hosts.inventory import load_hosts

hosts = load_hosts(json.loads(sys.argv[2]), "test") if sys.argv[2] else ["local/2"]
whats = ["plain", "class", "raises", "none", "long", "open"]
returns = launcher.multirun(
    safe_app.task, [{"what": what} for what in whats], hosts=hosts, results=sys.argv[3], folder=sys.argv[1],
    callbacks=[safe_app.Reads()], allow_types=[safe_app.Color],
)
for one in returns:
    try:
        print(one.num, repr(one.return_value)[:80])
    except Exception as error:
        print(one.num, type(error).__name__)
    repr(one.cfg), repr(one.hydra_cfg)
with launcher.Session.resume(sys.argv[1]) as session:
    pass
for one in session.returns:
    try:
        repr(one.return_value)
    except Exception as error:
        pass
"""
COMMANDS = """
import contextlib, json, sys
from launcher.cli.main import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["launcher", *arguments]
    with contextlib.suppress(SystemExit):
        main()
    print("==", flush=True)
"""

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Python:
    """Run a program in the application's folder, and record what it unpickles."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "safe_app.py").write_text(APP)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("UNPICKLED", str(tmp_path / "unpickled"))

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WATCH + program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)

    return run


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.slow)])
def hosts(request: pytest.FixtureRequest) -> str:
    """This machine, or a host behind SSH; as JSON."""
    if request.param == "local":
        return ""
    server: DemoServer = request.getfixturevalue("demo_server")
    return json.dumps({"demo": {"address": "demo", "ssh_config": str(server.ssh_config), "slots": 2}})


@pytest.mark.slow
@pytest.mark.parametrize("results", ["safe", pytest.param("trusted", marks=pytest.mark.slow)])
def test_no_unpickler_sees_what_a_host_made(python: Python, hosts: str, results: str, tmp_path: Path) -> None:
    """This holds during the run, when values, configs and failures are read, and in commands about it.

    Under `trusted`, an unpickler does get it.
    """
    sweep = str(tmp_path / "sweep")
    done = python(RUN, sweep, hosts, results)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "0 {'loss': 0.5, 'mark': 'made-on-the-host'}" in said
    assert "3 None" in said
    if results == "safe":
        assert {"1 ValueNotPlain", "2 RemoteJobError", "5 ValueNotPlain"} <= set(said)
    commands = [["show", sweep], ["attach", sweep], *(["show", f"{sweep}#{num}"] for num in range(6))]
    told = python(COMMANDS, json.dumps(commands))
    assert "Traceback" not in told.stderr, told.stderr
    shown = told.stdout.split("==")
    assert "value: {'loss': 0.5, 'mark': 'made-on-the-host'}" in shown[2]
    assert "value: [<Color.RED>, Point(x=2)]" in shown[3]
    assert "value:" not in shown[4]
    assert "value: None" in shown[5]
    assert "value: <list: 20,000 long>" in shown[6]
    assert "builtin_function_or_method" in shown[7]
    unpickled = (tmp_path / "unpickled").read_bytes()
    # Our own records are pickles, and are opened.
    assert unpickled
    assert (b"made-on-the-host" in unpickled) == (results == "trusted")


# -- in this process -------------------------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The imported application."""
    (tmp_path / "safe_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import safe_app

    yield safe_app
    sys.modules.pop("safe_app", None)


def ran(app: Any, folder: Path, *whats: str, **options: Any) -> Any:
    """Return the JobReturns of a run."""
    return launcher.multirun(app.task, [{"what": what} for what in whats], folder=folder / "sweep", **options)


@pytest.mark.slow
def test_an_edited_config_is_text(app: Any, tmp_path: Path) -> None:
    """Its interpolations are not resolved here. A config that the job did not edit is the controller's own."""
    edited, untouched = ran(app, tmp_path, "plain", "none", results="safe")
    assert edited.cfg.edited == "${oc.env:HOME}made-on-the-host"
    assert OmegaConf.to_container(edited.cfg, resolve=True)["edited"] == "${oc.env:HOME}made-on-the-host"
    assert untouched.cfg == {"what": "none"}
    assert edited.hydra_cfg.hydra.job.num == 0


@pytest.mark.slow
def test_classes_are_allowed_by_name(app: Any, tmp_path: Path) -> None:
    """They may be allowed at the start of the run, or when its values are read. A value is not decoded again."""
    (one,) = ran(app, tmp_path, "class", results="safe")
    with pytest.raises(ValueNotPlain, match=r"--allow-type safe_app\.Color") as caught:
        _ = one.return_value
    assert caught.value.place == "[0]"
    for allowed in ([app.Color, app.Point], ["safe_app:Color", "safe_app.Point"]):
        with launcher.Session.resume(tmp_path / "sweep", allow_types=allowed) as session:
            pass
        assert session.returns[0].return_value[0] is app.Color.RED
        # With what `__post_init__` did there, and not once more.
        assert session.returns[0].return_value[1].x == 2
    with launcher.Session.resume(tmp_path / "sweep", results="trusted") as session:
        pass
    assert session.returns[0].return_value[0] is app.Color.RED


@pytest.mark.slow
def test_a_trusted_run_can_be_read_safely_where_it_has_a_plain_form(app: Any, tmp_path: Path) -> None:
    """It is read from the plain form beside each pickle. For a part without a plain form, the error says what to do."""
    ran(app, tmp_path, "plain", "none", "long", "raises")
    with launcher.Session.resume(tmp_path / "sweep", results="safe") as session:
        pass
    plain, none, long, raises = session.returns
    assert plain.return_value == {"loss": 0.5, "mark": "made-on-the-host"}
    assert none.return_value is None
    with pytest.raises(ValueNotPlain, match=r"over 65,536 bytes(.|\n)*results='trusted'"):
        _ = long.return_value
    with pytest.raises(launcher.RemoteJobError, match="ValueError"):
        _ = raises.return_value
    with pytest.raises(ResultNotDecoded, match=r"cfg of job 0 on local is a pickle(.|\n)*results='trusted'"):
        _ = plain.cfg


@pytest.mark.slow
def test_pickles_of_an_older_version_are_not_opened(app: Any, tmp_path: Path) -> None:
    """For a run that it made under `safe`, the error says how to read them. None is recognised by its bytes."""
    import hashlib

    ran(app, tmp_path, "plain", "none", results="safe")
    journal = Journal(tmp_path / "sweep" / FOLDER)
    reader = JournalReader(tmp_path / "sweep" / FOLDER)
    for num, value in ((0, {"loss": 0.5}), (1, None)):
        stored = reader.result(num, 1)
        assert stored is not None
        data = pickle.dumps(value, 4)
        part = Part(0, len(data), hashlib.sha256(data).hexdigest())
        parts = NO_PARTS._replace(value=part, codec=PICKLED)
        old = StoredResult(num, 1, "local", stored.envelope, parts, data, None)
        journal.put_result(old)
    reader.close()
    journal.close()
    with launcher.Session.resume(tmp_path / "sweep") as session:
        pass
    with pytest.raises(ResultNotDecoded, match=r"value of job 0 on local is a pickle(.|\n)*results='trusted'"):
        _ = session.returns[0].return_value
    assert session.returns[1].return_value is None
    with launcher.Session.resume(tmp_path / "sweep", results="trusted") as session:
        pass
    assert session.returns[0].return_value == {"loss": 0.5}


def test_a_run_that_decodes_nothing_shows_nothing(app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands obey `never`, too."""
    from launcher.cli.commands.views.show import show

    (one,) = ran(app, tmp_path, "plain", results="never")
    with pytest.raises(ResultNotDecoded, match="results=never"):
        _ = one.return_value
    show(f"{tmp_path / 'sweep'}#0")
    assert "value" not in capsys.readouterr().out


class Late(launcher.Callback):
    """A callback whose end hook has not fired when the next one kills the job."""

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        pass

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        try:
            said = repr(job_return.return_value)
        except RuntimeError as error:
            said = str(error)
        Path("said").write_text(said)
        if config.replace:
            job_return.return_value = "replaced"


class Kills(Late):
    """A callback whose end hook kills the job, before the other's end hook."""

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        os._exit(9)


@pytest.mark.slow
@pytest.mark.parametrize("is_replaced", [False, True])
def test_an_outcome_outlives_a_job_that_dies_in_its_end_hook(
    is_replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value was sent as plain data, so it is not available to the next end hook, which may still set another one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    one = launcher.run(
        lambda cfg: {"loss": 0.5},
        {"replace": is_replaced, "hydra": {"job": {"chdir": True}}},
        callbacks=[Late(), Kills()],
        results="safe",
        folder=tmp_path / "out",
    )
    assert "results=safe" in (tmp_path / "out" / "said").read_text()
    assert one.status.name == "COMPLETED"
    assert one.return_value == ("replaced" if is_replaced else {"loss": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "results", "is_same", "why"),
    [("long", "trusted", True, "byte for byte"), ("open", "safe", None, "cannot be represented as plain data")],
)
def test_a_job_run_again_is_compared_where_it_has_a_plain_form(
    app: Any, tmp_path: Path, what: str, results: str, is_same: bool | None, why: str
) -> None:
    """The bytes in the form that its run asked for are compared, without decoding.

    A `repr` does not count as a value.
    """
    from launcher.options import LaunchConf
    from launcher.reproduce.reproduce import reproduce

    ran(app, tmp_path, what, results=results)
    done = reproduce(f"{tmp_path / 'sweep'}#0", LaunchConf(results="safe"), folder=tmp_path / "again")
    assert done.comparison is not None
    assert done.comparison.is_same is is_same
    assert why in " ".join(done.comparison.lines)
