"""The launcher plugin: its options, its batches, and an end hook that fires once whatever ends the sweep."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import HydraException

from launcher.demo.server import DemoServer
from tests.hydra import apps
from tests.hydra.hosts import hosts_file

_FILES = {
    "my_app.py": """
        import json
        import os
        import signal
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path

        import hydra
        from hydra.experimental.callback import Callback


        class Ends(Callback):
            def tell(self, **fact):
                with open("ends.jsonl", "a") as file:
                    file.write(json.dumps({"pid": os.getpid(), **fact}) + "\\n")

            def on_multirun_start(self, config, **kwargs):
                self.tell(hook="on_multirun_start")

            def on_multirun_end(self, config, config_name, job_returns, **kwargs):
                with ThreadPoolExecutor(1) as pool:  # it is not too late to start threads
                    told = pool.submit(lambda: [[one.num, one.status.name, one.error and one.error.kind] for one in job_returns])
                    self.tell(hook="on_multirun_end", returns=told.result(), config_name=config_name)

            def on_job_end(self, config, job_return, **kwargs):
                Path(config.hydra.runtime.output_dir, "ended").write_text(job_return.status.name)

            def on_job_return(self, config, job_return, **kwargs):
                self.tell(hook="on_job_return", num=job_return.num, x=config.x, job_num=config.hydra.job.num)
                if os.environ.get("RAISE_AT") == str(job_return.num):
                    raise RuntimeError("no more of this")

            def on_host_lost(self, config, host, jobs, **kwargs):
                self.tell(hook="on_host_lost", host=host, jobs=list(jobs), dir=config.hydra.sweep.dir)


        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            if cfg.x == 13:
                raise ValueError("thirteen")
            if cfg.x == 99:
                print("waiting", flush=True)
                signal.pause()
            if cfg.x == 98:
                print("waiting", flush=True)
                open("go").read()
            return cfg.x, os.getppid()


        if __name__ == "__main__":
            main()
        """,
    "conf/config.yaml": """
        x: 1
        hydra:
          sweep: {dir: sweep}
          callbacks: {ends: {_target_: my_app.Ends}}
        """,
    "conf/hydra/sweeper/odd.yaml": """
        _target_: hydra_plugins.odd_sweepers.sweepers.OddSweeper
        batches: ???
        starts: null
        ends_by: null
        """,
    "conf/opt.yaml": """
        defaults: [config, override hydra/sweeper: optuna]
        hydra:
          sweeper: {n_trials: 6, n_jobs: 2, sampler: {seed: 1}, params: {x: "range(-2,3)"}}
        """,
    "opt_app.py": """
        import hydra


        @hydra.main(version_base=None, config_path="conf", config_name="opt")
        def main(cfg):
            return (float(cfg.x) - 1) ** 2


        if __name__ == "__main__":
            main()
        """,
    "hydra_plugins/odd_sweepers/__init__.py": "",
    "hydra_plugins/odd_sweepers/sweepers.py": """
        import json

        from hydra.plugins.sweeper import Sweeper


        class OddSweeper(Sweeper):
            def __init__(self, batches, starts=None, ends_by=None):
                self.batches, self.starts, self.ends_by = batches, starts, ends_by

            def setup(self, *, hydra_context, task_function, config):
                from hydra.core.plugins import Plugins

                self.launcher = Plugins.instance().instantiate_launcher(
                    hydra_context=hydra_context, task_function=task_function, config=config
                )

            def sweep(self, arguments):
                start, told = 0, []
                for index, batch in enumerate(self.batches):
                    start = self.starts[index] if self.starts else start
                    returns = self.launcher.launch([[f"x={x}"] for x in batch], initial_job_idx=start)
                    start += len(batch)
                    told.append([[one.num, one.status.name, one.overrides] for one in returns])
                    if self.ends_by != "SystemExit":
                        told[-1].append(sorted({one.return_value[1] for one in returns if one.status.name == "COMPLETED"}))
                with open("told.json", "w") as file:
                    json.dump(told, file)
                if self.ends_by:
                    raise {"RuntimeError": RuntimeError, "SystemExit": SystemExit}[self.ends_by]("the sweeper is broken")
        """,
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with the application and its own plugin."""
    return apps.write(tmp_path, _FILES)


def _sweep(
    app: Path, *overrides: str, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return apps.python("my_app.py", "-m", "hydra/launcher=remote", *overrides, cwd=app, check=check, env=env)


class _Live:
    """A running sweep that shows its jobs' output. A context manager.

    `said` is its output so far. `wait_for` reads on until a text comes, and `rest` reads to the end.
    """

    def __init__(self, app: Path, *overrides: str) -> None:
        command = [sys.executable, "my_app.py", "-m", "hydra/launcher=remote", "hydra.launcher.live=true", *overrides]
        self.process = subprocess.Popen(command, cwd=app, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""

    def __enter__(self) -> _Live:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__(None, None, None)

    def wait_for(self, text: str) -> None:
        """Read until a line has this text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return
        raise AssertionError(f"{text!r} never came:\n{self.said}")

    def rest(self) -> int:
        """Read to the end. Returns the exit code."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait()


def _told(app: Path, hook: str) -> list[dict[str, Any]]:
    lines = (app / "ends.jsonl").read_text().splitlines()
    return [fact for fact in map(json.loads, lines) if fact["hook"] == hook]


def _odd(batches: str, *more: str) -> list[str]:
    return ["hydra/sweeper=odd", f"hydra.sweeper.batches={batches}", *(f"hydra.sweeper.{one}" for one in more)]


# -- how a sweep ends ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failed_job_ends_the_sweep_and_its_end_hook_fires(app: Path) -> None:
    """The basic sweeper raises at the first failure. All jobs ran, and on_multirun_end got all their returns, once."""
    done = _sweep(app, "x=1,13,2", check=False)
    assert done.returncode == 1
    (end,) = _told(app, "on_multirun_end")
    assert end["returns"] == [[0, "COMPLETED", None], [1, "FAILED", "exception"], [2, "COMPLETED", None]]
    assert end["config_name"] == "config"
    assert end["pid"] == _told(app, "on_multirun_start")[0]["pid"]
    assert "job 1, remote traceback:" in done.stdout
    assert "ValueError: thirteen" in done.stdout
    assert "ValueError: thirteen" in done.stderr


@pytest.mark.hydra_suite
def test_all_failures_are_reported_in_the_log_and_in_their_own(app: Path) -> None:
    """Each failed job's remote traceback is in the sweep's log and in the job's log."""
    done = _sweep(app, "x=13", "+again=1,2", check=False)
    assert done.stdout.count("remote traceback:") == 2
    for num in range(2):
        assert "ValueError: thirteen" in (app / "sweep" / str(num) / "my_app.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("by", "exit_code"), [("RuntimeError", 1), ("SystemExit", 1)])
def test_a_broken_sweeper_still_has_its_end_hook(app: Path, by: str, exit_code: int) -> None:
    """The end hook fires once, with the returns so far."""
    done = _sweep(app, *_odd("[[1, 2]]", f"ends_by={by}"), check=False)
    assert done.returncode == exit_code
    assert "the sweeper is broken" in done.stderr
    (end,) = _told(app, "on_multirun_end")
    assert [one[:2] for one in end["returns"]] == [[0, "COMPLETED"], [1, "COMPLETED"]]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_an_interrupt_cancels_the_sweep(app: Path, number: int, exit_code: int) -> None:
    """Ctrl-C (or SIGTERM) cancels running jobs.

    Their end hooks fire, the returns are collected, and on_multirun_end fires once.
    """
    with _Live(app, "x=1,99,2") as sweep:
        sweep.wait_for("waiting")
        sweep.process.send_signal(number)
        assert sweep.rest() in (exit_code, 128 + number), sweep.said
    (end,) = _told(app, "on_multirun_end")
    assert end["returns"] == [[0, "COMPLETED", None], [1, "FAILED", "cancelled"], [2, "FAILED", "cancelled"]], (
        sweep.said
    )
    assert (app / "sweep" / "1" / "ended").read_text() == "FAILED"


@pytest.mark.hydra_suite
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_sweep_that_was_left_is_finished_by_attach(app: Path, number: int) -> None:
    """After SIGHUP or kill -9 the jobs go on.

    `attach` collects the batch, starts no other one, and fires the end hook.
    """
    os.mkfifo(app / "go")
    with _Live(app, "x=1,98,2,3", "hydra.sweeper.max_batch_size=3") as sweep:
        sweep.wait_for("waiting")
        sweep.process.send_signal(number)
        sweep.rest()
    assert _told(app, "on_multirun_end") == [], sweep.said
    (app / "go").write_text("on")
    done = apps.launcher("attach", "last", cwd=app)
    (end,) = _told(app, "on_multirun_end")
    assert end["returns"] == [[0, "COMPLETED", None], [1, "COMPLETED", None], [2, "COMPLETED", None]], done.stdout


@pytest.mark.hydra_suite
@pytest.mark.parametrize(("policy", "kind"), [("warn", None), ("fail", "hook"), ("abort", "cancelled")])
def test_on_error_decides_about_a_hook_that_raises_on_the_controller(app: Path, policy: str, kind: str | None) -> None:
    """The launcher's on_error decides whether it warns, fails its job, or stops the sweep."""
    policies = f"+hydra.launcher.on_error.ends={policy}"
    done = _sweep(app, "x=1,99,2" if policy == "abort" else "x=1,3,2", policies, check=False, env={"RAISE_AT": "0"})
    assert done.returncode == (0 if policy == "warn" else 1)
    assert "callback ends.on_job_return" in done.stdout
    assert "RuntimeError: no more of this" in done.stdout
    (end,) = _told(app, "on_multirun_end")
    statuses = [one[1] for one in end["returns"]]
    assert statuses[0] == ("FAILED" if policy == "fail" else "COMPLETED")
    assert end["returns"][0 if policy == "fail" else -1][2] == kind
    if policy == "abort":
        assert "callback ends raised in on_job_return: no more of this" in done.stdout + done.stderr


@pytest.mark.hydra_suite
def test_a_lost_host_is_reported(app: Path, tmp_path: Path) -> None:
    """on_host_lost fires here with the jobs' numbers. They are FAILED of kind `lost`, and the end hook fires."""
    server = DemoServer()
    with server:
        hosts = hosts_file(tmp_path / "hosts.yaml", server.alias, server.ssh_config, python=sys.executable)
        options = [f"hosts_file={hosts}", "on_host_loss=fail", "host_loss_timeout=1"]
        with _Live(app, "x=99", *(f"hydra.launcher.{one}" for one in options)) as sweep:
            sweep.wait_for("waiting")
            server.stop()
            assert sweep.rest() == 1, sweep.said
    (lost,) = _told(app, "on_host_lost")
    assert (lost["host"], lost["jobs"], lost["dir"]) == ("demo", [0], "sweep")
    (end,) = _told(app, "on_multirun_end")
    assert end["returns"] == [[0, "FAILED", "lost"]]


@pytest.mark.hydra_suite
def test_fail_fast_stops_the_sweep(app: Path) -> None:
    """With fail_fast, jobs that have not started before the first failure do not run."""
    _sweep(app, "x=13,1,1,1,1,1,1,1,1,1", "hydra.launcher.fail_fast=true", check=False)
    (end,) = _told(app, "on_multirun_end")
    kinds = [kind for _, _, kind in end["returns"]]
    assert kinds[0] == "exception"
    assert kinds[-1] == "cancelled"


# -- batches ---------------------------------------------------------------------------------------------------------


def test_failed_jobs_are_returned_not_raised(app: Path) -> None:
    """The sweeper gets FAILED JobReturns in the order of the overrides, numbered from initial_job_idx."""
    _sweep(app, *_odd("[[1, 13], [13, 2, 3]]"))
    told = json.loads((app / "told.json").read_text())
    assert [one[:3] for batch in told for one in batch[:-1]] == [
        [0, "COMPLETED", ["x=1"]],
        [1, "FAILED", ["x=13"]],
        [2, "FAILED", ["x=13"]],
        [3, "COMPLETED", ["x=2"]],
        [4, "COMPLETED", ["x=3"]],
    ]
    (end,) = _told(app, "on_multirun_end")
    assert [num for num, *_ in end["returns"]] == [0, 1, 2, 3, 4]
    assert [[one["num"], one["job_num"], one["x"]] for one in _told(app, "on_job_return")] == [
        [0, 0, 1],
        [1, 1, 13],
        [2, 2, 13],
        [3, 3, 2],
        [4, 4, 3],
    ]


@pytest.mark.hydra_suite
def test_batches_share_a_session(app: Path) -> None:
    """The application is imported once per host and sweep, so the jobs of all batches have the same parent process."""
    _sweep(app, *_odd("[[1], [2], [3]]"))
    told = json.loads((app / "told.json").read_text())
    parents = {parent for batch in told for parent in batch[-1]}
    assert len(parents) == 1


@pytest.mark.hydra_suite
def test_a_sweeper_may_number_its_batches_again(app: Path) -> None:
    """A batch whose first number does not follow the last one is a run of its own.

    on_multirun_end has the returns of all, in order.
    """
    _sweep(app, *_odd("[[1, 2], [3], [4]]", "starts=[0,0,7]"))
    (end,) = _told(app, "on_multirun_end")
    assert [num for num, *_ in end["returns"]] == [0, 1, 0, 7]


@pytest.mark.hydra_suite
def test_a_sweep_dir_may_be_used_twice(app: Path) -> None:
    """A second sweep into the same folder has its own results."""
    _sweep(app, "x=1,13", check=False)
    _sweep(app, "x=2")
    first, second = _told(app, "on_multirun_end")
    assert first["returns"] == [[0, "COMPLETED", None], [1, "FAILED", "exception"]]
    assert second["returns"] == [[0, "COMPLETED", None]]
    shown = json.loads(apps.launcher("show", "last", "--json", cwd=app).stdout)
    assert [job["num"] for job in shown["jobs"]] == [0]
    assert len(list((app / "sweep").glob(".launcher.*"))) == 1


@pytest.mark.hydra_suite
def test_the_optuna_sweeper_works(app: Path) -> None:
    """The unchanged Optuna sweeper makes several batches, gets the values, and writes its results file."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    apps.python("opt_app.py", "-m", "hydra/launcher=remote", cwd=app)
    (end,) = _told(app, "on_multirun_end")
    assert [[num, status] for num, status, _ in end["returns"]] == [[num, "COMPLETED"] for num in range(6)]
    assert "best_value" in (app / "sweep" / "optimization_results.yaml").read_text()


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_option_is_refused_in_a_line(app: Path) -> None:
    """It is refused before anything starts, without a traceback.

    on_multirun_start had fired, so on_multirun_end fires.
    """
    done = _sweep(app, "x=1,2", "hydra.launcher.hots=[gpu1]", check=False)
    assert done.returncode == 1
    assert "hydra.launcher: unknown option 'hots'; did you mean 'hosts'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (app / "sweep").exists()
    assert [one["returns"] for one in _told(app, "on_multirun_end")] == [[]]


@pytest.mark.usefixtures("hydra_restore_singletons")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+hydra.launcher.timout=3", "unknown option 'timout'; did you mean 'timeout'?"),
        pytest.param(
            "hydra.launcher.isolation=frok", "isolation: 'frok' is not one of auto, fork, spawn", marks=pytest.mark.slow
        ),
        pytest.param("hydra.launcher.hosts=[a b]", "host 'a b'", marks=pytest.mark.slow),
        ("+hydra.launcher.on_error.nobody=fail", "on_error names 'nobody'; the callbacks are none"),
        pytest.param("hydra.launcher.live=perhaps", "not a valid bool", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    hydra_sweep_runner: Any, tmp_path: Path, override: str, message: str
) -> None:
    """The message has the field and the allowed values."""
    sweep = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        task_function=None,
        config_path="configs",
        config_name="compose.yaml",
        overrides=["hydra/launcher=remote", override],
        temp_dir=tmp_path / "sweep",
    )
    with pytest.raises(HydraException) as caught, sweep:
        pass
    assert message in f"{caught.value}\n{caught.value.__cause__}"
    assert list((tmp_path / "sweep").iterdir()) == []


def test_every_option_of_a_run_is_an_option_of_the_plugin() -> None:
    """It has the same default."""
    from hydra_plugins.hydra_remote_launcher._conf import RemoteLauncherConf
    from launcher.options import LaunchConf

    conf = {name: value for name, value in dataclasses.asdict(RemoteLauncherConf()).items() if not name.startswith("_")}
    assert LaunchConf.from_mapping(conf) == LaunchConf()
    assert set(conf) == {field.name for field in dataclasses.fields(LaunchConf)}


@pytest.mark.hydra_suite
def test_the_command_line_uses_the_options_of_the_app(app: Path, demo_hosts: Path) -> None:
    """If an app configures this launcher, `launcher run` uses its options, too.

    Those of the command line override them.
    """
    (app / "conf" / "own.yaml").write_text(
        "defaults: [config, override hydra/launcher: remote]\n"
        f"hydra: {{launcher: {{hosts_file: {demo_hosts}, env: {{TOKEN: verysecret}}}}}}\n"
    )
    command = ["multirun", "my_app.py", "--config-name", "own", "x=1,2"]
    done = apps.launcher(*command, cwd=app)
    assert "host demo: ready" in done.stdout
    assert "verysecret" not in (app / "sweep" / "multirun.yaml").read_text()
    assert "host local: ready" in apps.launcher(*command, "--host", "local", cwd=app).stdout
    done = apps.launcher(*command, "+hydra.launcher.hosts_fil=x", cwd=app, check=False)
    assert done.returncode == 2
    assert "did you mean 'hosts_file'?" in done.stderr


@pytest.mark.slow
def test_discovery_imports_nothing_heavy() -> None:
    """Every Hydra app on the machine executes the plugin's module, so it imports neither fabric nor launcher."""
    code = "from hydra.core.plugins import Plugins; Plugins.instance(); import sys; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "hydra_plugins.hydra_remote_launcher.remote_launcher" in done.stdout
    for heavy in ("fabric", "paramiko", "launcher", "launcher.session.session", "asyncssh", "rich"):
        assert f"'{heavy}'" not in done.stdout


@pytest.mark.slow
def test_secrets_are_in_no_file(app: Path) -> None:
    """The values of hydra.launcher.env reach the job, but no config, pickle, log or journal."""
    (app / "conf" / "config.yaml").write_text(
        (app / "conf" / "config.yaml").read_text()
        + "  job_logging: {root: {level: DEBUG}}\n"
        + "hidden: ${oc.env:TOKEN,none}\n"
    )
    (app / "my_app.py").write_text(
        (app / "my_app.py")
        .read_text()
        .replace("return cfg.x", 'return len(os.environ["TOKEN"] + os.environ["OTHER"]), cfg.x')
    )
    pickles = "+hydra.callbacks.pickle={_target_: hydra.experimental.callbacks.PickleJobInfoCallback}"
    hosts = "hydra.launcher.hosts=[{name: local, env: {OTHER: verysecret-two}}]"
    done = _sweep(app, "x=1,2", "+hydra.launcher.env.TOKEN=verysecretvalue", hosts, pickles)
    assert "verysecret" not in done.stdout + done.stderr
    found = [path for path in app.rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()]
    assert found == []
    assert (app / "sweep" / "1" / ".hydra" / "job_return.pickle").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plugin", "command line"])
@pytest.mark.parametrize("whose", ["of the run", "of a host"])
def test_values_of_variables_are_byte_exact(app: Path, way: str, whose: str) -> None:
    """They are resolved once, like everything in a config. If the result looks like an interpolation, it is text."""
    exact = {
        "SPACES": " two  words ",
        "QUOTES": 'it\'s "so"',
        "LINES": "one\ntwo\n",
        "BACKSLASHES": "a\\b\\",
        "SHELL": "$HOME `id` $(id)",
        "REFERENCE": "${x}",
        "ESCAPED": "\\${x}",
        "MISSING": "???",
    }
    spelled = {**exact, "REFERENCE": "\\${x}", "ESCAPED": "\\\\\\${x}", "ANOTHER": "${hydra.job.name}"}
    node: dict[str, Any] = {"env": spelled} if whose == "of the run" else {"hosts": [{"name": "local", "env": spelled}]}
    (app / "conf" / "exact.yaml").write_text(
        "defaults: [config, override hydra/launcher: remote]\n" + yaml.safe_dump({"hydra": {"launcher": node}})
    )
    names = [*exact, "ANOTHER"]
    (app / "my_app.py").write_text(
        (app / "my_app.py")
        .read_text()
        .replace(
            "return cfg.x,", f"json.dump([os.environ[name] for name in {names}], open('env.json', 'w')); return cfg.x,"
        )
    )
    command = ["multirun", "my_app.py"] if way == "command line" else ["my_app.py", "-m"]
    (apps.launcher if way == "command line" else apps.python)(*command, "--config-name", "exact", "x=1", cwd=app)
    assert json.loads((app / "env.json").read_text()) == [*exact.values(), "my_app"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plugin", "command line"])
def test_a_later_job_whose_config_does_not_resolve_is_failed(app: Path, way: str) -> None:
    """The sweep has begun by then, so only that job fails."""
    command = ["multirun", "my_app.py"] if way == "command line" else ["my_app.py", "-m", "hydra/launcher=remote"]
    start = apps.launcher if way == "command line" else apps.python
    done = start(*command, "x=1,'${oc.evn:X}',3", cwd=app, check=False)
    assert done.returncode == 1
    assert "there is no resolver 'oc.evn' (did you mean 'oc.env'?)" in done.stdout + done.stderr
    told = json.loads(apps.launcher("show", "sweep", "--json", "--all", cwd=app).stdout)
    assert [job["error"] and job["error"]["kind"] for job in told["jobs"]] == [None, "config", None]


@pytest.mark.slow
def test_jobs_on_two_hosts_may_share_a_folder(tmp_path: Path, demo_hosts: Path) -> None:
    """No job overwrites another job's file: its file gets another name beside it, with a warning.

    The output of each job is kept.
    """
    apps.write(
        tmp_path,
        {
            "my_app.py": """
                import logging
                import os

                import hydra
                from hydra.core.hydra_config import HydraConfig


                @hydra.main(version_base=None, config_path=None)
                def main(cfg):
                    out = HydraConfig.get().runtime.output_dir
                    logging.getLogger(__name__).info("seed %s", cfg.seed)
                    print("printed", cfg.seed)
                    with open(os.path.join(out, "scores.csv"), "a") as file:
                        file.write(f"{cfg.seed}\\n")
                    with open(os.path.join(out, "same.txt"), "w") as file:
                        file.write("same")


                if __name__ == "__main__":
                    main()
                """
        },
    )
    hosts = yaml.safe_load(demo_hosts.read_text())
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump({**hosts, "local": {"address": "local"}}))
    done = apps.python(
        "my_app.py",
        *("-m", "hydra/launcher=remote", "hydra.launcher.hosts_file=hosts.yaml", "+seed=1,2,3,4"),
        *("hydra.sweep.dir=sweep", "hydra.sweep.subdir=one"),
        cwd=tmp_path,
    )
    folder = tmp_path / "sweep" / "one"
    assert sorted(path.read_text() for path in folder.glob("scores*.csv")) == ["1\n", "2\n", "3\n", "4\n"]
    assert sum(path.read_text().count("seed") for path in folder.glob("my_app*.log")) == 4
    assert [path.name for path in folder.glob("same*")] == ["same.txt"]
    told = done.stdout + done.stderr
    assert told.count("was not overwritten") == 3
    assert "scores.job-" in told
    for num in range(4):
        printed = apps.launcher("logs", f"sweep#{num}", "--stream", "stdout", cwd=tmp_path).stdout
        assert printed.endswith(f"printed {num + 1}\n")
        assert printed.count("printed") == 1
