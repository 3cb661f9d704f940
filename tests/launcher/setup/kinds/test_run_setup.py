"""A run's setup is checked once, does not change afterwards, and every host is told the same."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.app_run import prepare
from launcher.code.application.application import load_application
from launcher.config.lazy import made_now
from launcher.errors import UsageError
from launcher.options import LaunchConf
from launcher.runs.journal import FOLDER, JournalReader
from launcher.setup import code
from launcher.setup.kinds.again import HydraAgain, PlainAgain
from launcher.setup.kinds.hydra import HydraSetup
from launcher.setup.kinds.plain_app import PlainAppSetup
from launcher.setup.kinds.run_setup import RunSetup
from launcher.setup.prepared import PreparedRun


def double(config: Any) -> int:
    """A task."""
    return 2 * int(config["n"])


def _made(folder: Path, task: Any = double, **kw: Any) -> RunSetup:
    return RunSetup.make("MULTIRUN", task, [{"n": 1}], hosts=None, callbacks=(), folder=folder, options=None, **kw)


def _counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    calls: list[Any] = []
    real: Callable[..., Any] = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


@pytest.mark.parametrize("kind", [RunSetup, PlainAppSetup, HydraSetup, PlainAgain, HydraAgain, PreparedRun])
def test_no_kind_of_setup_can_be_changed(kind: type[Any]) -> None:
    """No field of a setup is ever set again."""
    setup = object.__new__(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(setup, field.name, None)


def test_another_folder_makes_another_setup(tmp_path: Path) -> None:
    """The folder that was taken is in a new setup, and in the config for hooks. The first setup is unchanged."""
    setup = _made(tmp_path / "first")
    moved = setup.in_folder(tmp_path / "second")
    assert (setup.folder, moved.folder) == (tmp_path / "first", tmp_path / "second")
    assert moved.run_id == setup.run_id
    assert moved.node(None, ())["sweep"]["dir"] == str(tmp_path / "second")
    assert moved.in_folder(moved.folder) is moved


def test_a_task_that_is_refused_leaves_the_setup_as_it_was(tmp_path: Path) -> None:
    """If the first job's task cannot be called, the session is not affected, and the next job brings the task."""
    setup = _made(tmp_path, None)
    with pytest.raises(UsageError):
        setup.with_task(lambda: 1)
    assert setup.waits_for_task
    assert setup.with_task(double).task is double


def test_the_code_of_a_package_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot of an application in a package is that of the folder around the package.

    No other one is made before.
    """
    package = tmp_path / "project" / "mypackage"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "app.py").write_text(
        "import hydra\n\n@hydra.main(version_base=None, config_path=None)\ndef main(config):\n    return 1\n"
    )
    monkeypatch.chdir(package.parent)
    monkeypatch.syspath_prepend(str(package.parent))
    taken = _counted(monkeypatch, code, "take")
    app_run = prepare("RUN", load_application("mypackage.app"), [], options=LaunchConf(hosts=("somewhere.invalid",)))
    try:
        assert [args[0] for args in taken] == [package.parent]
        snapshot = app_run.setup.snapshot
        assert snapshot is not None
        assert snapshot.has_file(str(package / "app.py"))
    finally:
        app_run.close()
        for name in ("mypackage", "mypackage.app"):
            sys.modules.pop(name, None)


def test_a_plain_app_with_plain_overrides_needs_no_omegaconf_until_its_hosts_start(tmp_path: Path) -> None:
    """Up to the job's bytes nothing imports it, nor Hydra. With a list, which needs Hydra's parser, both are imported."""
    (tmp_path / "plain_one.py").write_text("def main(config):\n    return 1\n")
    program = (
        "import sys\n"
        "from launcher.app_run import prepare_named\n"
        "from launcher.options import LaunchConf\n"
        "for words in sys.argv[1:]:\n"
        "    mode, *overrides = words.split()\n"
        "    app_run = prepare_named(mode, 'plain_one.py', overrides, options=LaunchConf())\n"
        "    setup = app_run.setup\n"
        "    job = setup.job(0, setup.task, None, tuple(overrides))\n"
        "    config = setup.pickler.loads(job.payload)['config']\n"
        "    print(job.failure, sorted({'omegaconf', 'hydra'} & set(sys.modules)), config)\n"
    )
    command = [sys.executable, "-c", program, "RUN x=1 a.b=word", "RUN", "MULTIRUN x=2", "RUN x=[1]"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "None [] {'x': 1, 'a': {'b': 'word'}}",
        "None [] {}",
        "None [] {'x': 2}",
        "None ['hydra', 'omegaconf'] {'x': [1]}",
    ]


def test_what_a_start_hook_changes_in_the_config_of_a_plain_app_reaches_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the config is made only because the hook reads it. The `hydra` node stays here."""
    (tmp_path / "plain_two.py").write_text("def main(config):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    setup = prepare("RUN", load_application("plain_two.py"), ["x=1"], options=LaunchConf()).setup
    try:
        config = made_now(setup.root_config)
        assert config.hydra.job.name == "plain_two"
        config.x = 5
        sent = setup.pickler.loads(setup.job(0, setup.task, None, ()).payload)["config"]
        assert sent == {"x": 5}
    finally:
        sys.modules.pop("plain_two", None)


@pytest.mark.slow
def test_the_description_for_hosts_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stores exactly what the host is told."""
    made = _counted(monkeypatch, RunSetup, "command")
    assert launcher.run(double, {"n": 2}, folder=tmp_path).return_value == 4
    assert len(made) == 1


def test_code_by_value_in_a_job_is_told_to_later_hosts(tmp_path: Path) -> None:
    """A config may contain code. A host with another Python must be told that, if it has not asked yet."""
    setup = _made(tmp_path)
    prepared = setup.prepare()
    (host,) = setup.hosts
    before = prepared.zygote_of(host).controller
    setup.job(0, double, {"n": 1, "scale": lambda value: value}, ())
    after = prepared.zygote_of(host).controller
    assert not before.by_value
    assert after.by_value
    assert after._replace(by_value=False, values=before.values) == before


class Weight:
    """Something in a config that counts how often it is pickled."""

    pickled = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        type(self).pickled += 1
        return (Weight, (self.value,))


def heavy(config: Any) -> int:
    """A task."""
    return int(config["weight"].value)


@pytest.mark.slow
def test_each_config_of_a_list_is_pickled_and_journalled_once(tmp_path: Path) -> None:
    """A config may be large. The journal stores what is sent, and nothing is made only for the journal."""
    # The first one is also what the run hooks get, which is another thing.
    configs = [{"weight": None}, *({"weight": Weight(value)} for value in (1, 2, 3))]
    Weight.pickled = 0
    returns = launcher.multirun(heavy, configs, folder=tmp_path)
    assert [one.return_value for one in list(returns)[1:]] == [1, 2, 3]
    assert Weight.pickled == 3
    with JournalReader(tmp_path / FOLDER) as reader:
        assert reader.blob_names("planned/") == []
        assert all(reader.payload(num) for num in range(4))


def test_a_task_that_has_changed_is_sent_with_its_job(tmp_path: Path) -> None:
    """All jobs share the task as it was at the beginning. If an attribute of it or a function that it uses is another one now, its job has it."""
    names: dict[str, Any] = {}
    exec("def factor():\n    return 3\ndef task(config):\n    return factor()", names)
    setup = _made(tmp_path, names["task"])
    setup.prepare()

    def sent() -> Any:
        return setup.pickler.loads(setup.job(0, names["task"], {"n": 1}, ()).payload).get("task")

    assert sent() is None
    names["factor"] = lambda: 100
    assert sent()({}) == 100
