"""`launcher reproduce` runs a job again, here or on a host, with the present or the recorded code, and says whether it
ended in the same way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hydra import apps

_FILES = {
    "my_app.py": """
        import os
        from pathlib import Path

        import hydra
        from hydra.core.hydra_config import HydraConf
        from hydra.core.hydra_config import HydraConfig
        from hydra.experimental.callback import Callback

        VERSION = 1


        class Tell(Callback):
            def on_multirun_start(self, config, **kwargs):
                self.told = "by on_multirun_start"

            def on_job_start(self, config, **kwargs):
                Path(config.hydra.runtime.output_dir, "told").write_text(self.told)

            def on_run_start(self, config, **kwargs):
                raise AssertionError("the run's hooks do not fire when a job is reproduced")


        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            if cfg.x == 13:
                raise ValueError(f"thirteen, in {cfg.stamp}")
            return {"x": cfg.x, "stamp": cfg.stamp, "version": VERSION, "num": HydraConfig.get().job.num}


        if __name__ == "__main__":
            main()
        """,
    "conf/config.yaml": """
        x: 1
        stamp: ${now:%H-%M-%S.%f}
        hydra:
          sweep: {dir: sweep}
          callbacks:
            tell: {_target_: my_app.Tell}
            pickle: {_target_: hydra.experimental.callbacks.PickleJobInfoCallback}
            logged: {_target_: remote_agent.callbacks.LogJobReturnCallback}
        """,
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application in a git work tree."""
    folder = apps.write(tmp_path / "app", _FILES)
    apps.run("git", "init", "-q", cwd=folder)
    return folder


def _sweep(app: Path, *overrides: str) -> None:
    apps.python("my_app.py", "-m", "hydra/launcher=remote", *overrides, cwd=app, check=False)


def _reproduce(app: Path, *args: object) -> dict[str, Any]:
    """Return the report of `launcher reproduce --json`."""
    done = apps.launcher("reproduce", "--json", "--folder", app / "again", *args, cwd=app, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{done.stdout}\n{done.stderr}") from None
    assert report["exit_code"] == done.returncode
    return report


@pytest.mark.slow
def test_a_job_of_a_run_ends_the_same_way(app: Path) -> None:
    """RUN#NUM and the output directory name the same job. It has the same config, `${now:}` and number as before."""
    _sweep(app, "x=5,13")
    first = _reproduce(app, "last#0")
    assert (first["is_same"], first["status"], first["says"]) == (
        True,
        "COMPLETED",
        ["COMPLETED with the same value, byte for byte"],
    )
    failed = _reproduce(app, "sweep/1", "--folder", app / "again2")
    assert (failed["is_same"], failed["status"]) == (True, "FAILED")
    assert failed["place"].startswith("my_app.py:")
    assert failed["error"]["message"].startswith("thirteen, in ")


@pytest.mark.hydra_suite
def test_a_job_of_a_changed_application_ends_differently(app: Path) -> None:
    """A different value, line or type of exception is reported."""
    _sweep(app, "x=5,13")
    source = (app / "my_app.py").read_text()
    (app / "my_app.py").write_text(source.replace("VERSION = 1", "VERSION = 2"))
    report = _reproduce(app, "sweep/0")
    assert report["is_same"] is False
    assert "'version': 1" in report["says"][0]
    assert "'version': 2" in report["says"][1]
    (app / "my_app.py").write_text("# one line more\n" + source)
    (line,) = _reproduce(app, "sweep/1", "--folder", app / "again2")["says"]
    assert "was raised at my_app.py:" in line
    (app / "my_app.py").write_text(source.replace("raise ValueError", "raise KeyError"))
    (line,) = _reproduce(app, "sweep/1", "--folder", app / "again3")["says"]
    assert "ValueError" in line
    assert "KeyError" in line


@pytest.mark.hydra_suite
def test_hooks_fire_only_when_asked_for(app: Path) -> None:
    """The job's hooks fire, with the state of the callbacks that the run sent. The run's hooks never fire."""
    _sweep(app, "x=5")
    assert _reproduce(app, "sweep/0")["is_same"]
    assert not (app / "again" / "told").exists()
    assert _reproduce(app, "sweep/0", "--hooks", "--folder", app / "again2")["is_same"]
    assert (app / "again2" / "told").read_text() == "by on_multirun_start"


@pytest.mark.hydra_suite
def test_a_job_runs_again_on_a_host_with_the_recorded_code(app: Path, demo_hosts: Path) -> None:
    """A job from a host runs again there or here, with the code that it had.

    Without --exact, it runs the present code.
    """
    there = f"hydra.launcher.hosts_file={demo_hosts}"
    _sweep(app, there, "x=5")
    (app / "my_app.py").write_text((app / "my_app.py").read_text().replace("VERSION = 1", "VERSION = 2"))
    assert _reproduce(app, "sweep/0", "--hosts", demo_hosts)["is_same"] is False
    assert _reproduce(app, "sweep/0", "--hosts", demo_hosts, "--exact", "--folder", app / "again2")["is_same"] is True
    assert _reproduce(app, "sweep/0", "--exact", "--folder", app / "again3")["is_same"] is True


@pytest.mark.hydra_suite
def test_code_that_was_not_recorded_is_an_error(app: Path) -> None:
    """A run in place has no snapshot, and --exact says so."""
    _sweep(app, "x=5")
    done = apps.launcher("reproduce", "sweep/0", "--exact", cwd=app, check=False)
    assert done.returncode == 2
    assert "the code that it ran was not recorded" in done.stderr


_TRAP = "import os\nclass Trap:\n    def __reduce__(self):\n        return (os.mkdir, ('sprung',))\n"


@pytest.mark.hydra_suite
def test_no_pickle_of_a_host_is_opened_unless_its_path_is_given(app: Path) -> None:
    """RUN#NUM and an output directory do not open the pickles there. Only the path of a pickle does."""
    _sweep(app, "x=5")
    code = (
        _TRAP
        + "import pickle\nfor name in ('config', 'job_return'):\n    pickle.dump(Trap(), open(f'sweep/0/.hydra/{name}.pickle', 'wb'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=app, check=True)
    assert _reproduce(app, "last#0")["is_same"]
    assert _reproduce(app, "sweep/0", "--folder", app / "again2")["is_same"]
    assert not (app / "sprung").exists()
    apps.launcher("reproduce", "sweep/0/.hydra/config.pickle", cwd=app, check=False)
    assert (app / "sprung").exists()


@pytest.mark.hydra_suite
@pytest.mark.parametrize("way", ["hydra", "launcher"])
def test_a_job_can_be_reproduced_from_pickles_and_yaml(app: Path, way: str) -> None:
    """config.pickle and job_return.pickle work, from plain Hydra or from an unknown run. For an output directory the
    application must be named, because the files there are not trusted to name code.
    """
    if way == "hydra":
        apps.python("my_app.py", "-m", "x=5", cwd=app)
    else:
        _sweep(app, "x=5")
        (app / "sweep" / ".launcher").rename(app / "forgotten")
    files = app / "sweep" / "0" / ".hydra"
    report = _reproduce(app, files / "job_return.pickle")
    assert (report["is_same"], report["says"]) == (True, ["COMPLETED with an equal value"])
    assert "--app" in _reproduce(app, app / "sweep" / "0")["error"]["message"]
    for number, of in enumerate([[files / "config.pickle"], [app / "sweep" / "0", "--app", "my_app.py"]]):
        report = _reproduce(app, *of, "--folder", app / f"again_{number}")
        assert (report["is_same"], report["status"]) == (None, "COMPLETED")
    report = _reproduce(app, files / "config.pickle", "--app", "my_app.py:main", "--folder", app / "named")
    assert report["status"] == "COMPLETED"


@pytest.mark.hydra_suite
def test_our_pickle_is_accepted_by_hydras_rerun(app: Path) -> None:
    """`python my_app.py --experimental-rerun` with the config.pickle of our callback."""
    (app / "conf" / "config.yaml").write_text(
        (app / "conf" / "config.yaml")
        .read_text()
        .replace("hydra.experimental.callbacks.Pickle", "remote_agent.callbacks.Pickle")
    )
    (app / "my_app.py").write_text(
        (app / "my_app.py").read_text().replace("return {", 'print("x is", cfg.x)\n    return {')
    )
    # Hydra's rerun does not know ${now:}.
    _sweep(app, "x=5", "stamp=fixed")
    done = apps.python("my_app.py", "--experimental-rerun", "sweep/0/.hydra/config.pickle", cwd=app)
    assert "x is 5" in done.stdout


@pytest.mark.openssh
@pytest.mark.parametrize("whose", ["hydra.experimental", "remote_agent"])
def test_a_pickle_from_a_host_that_shares_no_disk_is_accepted_by_hydras_rerun(
    app: Path, openssh_hosts: Path, whose: str
) -> None:
    """It has this machine's folders, in which Hydra opens the log. The callbacks on the host saw the host's folders."""
    config = (app / "conf" / "config.yaml").read_text()
    (app / "conf" / "config.yaml").write_text(
        config.replace("hydra.experimental.callbacks.Pickle", f"{whose}.callbacks.Pickle")
    )
    (app / "my_app.py").write_text(
        (app / "my_app.py").read_text().replace("return {", 'logging.warning("x is %s", cfg.x)\n    return {', 1)
    )
    (app / "my_app.py").write_text("import logging\n" + (app / "my_app.py").read_text())
    _sweep(app, "x=5", "stamp=fixed", f"hydra.launcher.hosts_file={openssh_hosts}")
    apps.python("my_app.py", "--experimental-rerun", "sweep/0/.hydra/config.pickle", cwd=app)
    log = (app / "sweep" / "0" / "my_app.log").read_text()
    assert log.count("x is 5") == 2
    assert (app / "sweep" / "0" / "told").read_text() == "by on_multirun_start"
    assert "keeps this host's folders" not in log
    config = "import pickle; print(pickle.load(open('sweep/0/.hydra/config.pickle', 'rb')).hydra.runtime.cwd)"
    assert apps.python("-c", config, cwd=app).stdout.strip() == str(app)


@pytest.mark.hydra_suite
def test_last_is_the_run_and_not_its_reproduction(app: Path) -> None:
    """So `last#1` can be reproduced twice. Hydra's folder in an output directory means that directory."""
    _sweep(app, "x=1,13")
    for target in ("last#1", "last#1", "sweep/1/.hydra"):
        report = _reproduce(app, target)
        assert (report["is_same"], report["status"]) == (True, "FAILED"), target


@pytest.mark.hydra_suite
def test_a_job_can_be_reproduced_in_the_debugger(app: Path) -> None:
    """--pdb stops where the job fails, and its variables can be read."""
    _sweep(app, "x=13")
    done = subprocess.run(
        [sys.executable, "-c", "from launcher.cli.main import main; main()", "reproduce", "sweep/0", "--pdb"],
        cwd=app,
        input="p 'x is', cfg.x\nq\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "('x is', 13)" in done.stdout, done.stderr
    assert "the outcome is the same:" in done.stdout
    assert done.returncode == 0


@pytest.mark.hydra_suite
def test_a_job_of_a_plain_function_can_be_reproduced(tmp_path: Path) -> None:
    """This also holds for jobs of a plain function's `launcher multirun`."""
    apps.write(tmp_path, {"plain.py": "def work(cfg):\n    return cfg.a / cfg.b\n"})
    apps.launcher("multirun", "plain.py:work", "a=6", "b=2,0", "--folder", "runs", cwd=tmp_path, check=False)
    assert _reproduce(tmp_path, "runs/0")["says"] == ["COMPLETED with the same value, byte for byte"]
    assert "ZeroDivisionError" in _reproduce(tmp_path, "runs/1", "--folder", tmp_path / "again2")["says"][0]


@pytest.mark.hydra_suite
def test_a_run_of_one_job_needs_no_number(tmp_path: Path) -> None:
    """No other job could be meant."""
    apps.write(tmp_path, {"plain.py": "def work(cfg):\n    return cfg.a / cfg.b\n"})
    apps.launcher("run", "plain.py:work", "a=6", "b=2", "--folder", "one", cwd=tmp_path)
    assert _reproduce(tmp_path, "last")["says"] == ["COMPLETED with the same value, byte for byte"]


@pytest.mark.hydra_suite
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere#0", "no run 'nowhere'"),
        ("sweep", "is not the output directory of a job"),
        ("last", "which of its jobs? Say last#0"),
        ("last#9", "has no job 9"),
        ("conf/config.yaml", "is not the output directory of a job"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_by_name(app: Path, target: str, message: str) -> None:
    """The exit code is 2, and nothing runs."""
    if not (app / "sweep").exists():
        _sweep(app, "x=5,6")
    done = apps.launcher("reproduce", target, cwd=app, check=False)
    assert done.returncode == 2
    assert message in done.stderr
