"""The command line: its arguments, its output, its exit codes. Most tests need no host, some use the local transport."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from launcher import __version__
from launcher.cli import flags
from launcher.cli import main as cli
from launcher.cli.commands import COMMANDS, Command
from launcher.demo.server import DemoServer
from launcher.errors import LauncherError, RunInterrupted, UsageError
from launcher.options import LaunchConf

ROOT = Path(__file__).parents[3]
MAIN = "from launcher.cli.main import main; main()"

APP = '''
import os
import signal
import sys
import time


def train(cfg):
    print("training with", dict(cfg), flush=True)
    if cfg.get("fail"):
        raise ValueError("as asked")
    if cfg.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.get("wait"):
        print("waiting", flush=True)
        time.sleep(60)
    return cfg.get("x", 0) * 2


class Recorder:
    """A callback that is none of Hydra's and none of ours: it has the methods."""

    def on_run_start(self, config, **kwargs):
        print("hook: on_run_start")

    def on_job_start(self, config, **kwargs):
        print("hook: on_job_start", flush=True)

    def on_job_end(self, config, job_return, **kwargs):
        print("hook: on_job_end", job_return.status.name, flush=True)

    def on_run_end(self, config, job_return, **kwargs):
        print("hook: on_run_end", job_return.status.name if job_return else None)

    def on_multirun_end(self, config, job_returns, **kwargs):
        print("hook: on_multirun_end", [one.status.name for one in job_returns], flush=True)


class Broken:
    on_error = "abort"

    def on_run_start(self, config, **kwargs):
        raise RuntimeError("no")
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an application."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "my_app.py").write_text(APP)
    return folder


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """Its report under --json."""
        return dict(json.loads(self.stdout))


@pytest.fixture
def command(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Runs `launcher` in the project's folder; in this process, which has imported Hydra already."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def run(*arguments: str) -> Done:
        code = ended(*arguments)
        return Done(code, *capsys.readouterr())

    yield run
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(project):
            del sys.modules[name]


def ended(*arguments: str) -> int:
    """The exit code of a command run in this process."""
    with pytest.raises(SystemExit) as leaving:
        cli.main(arguments)
    return int(leaving.value.code or 0)


# -- the command itself ----------------------------------------------------------------------------------------------


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`launcher --version` prints the version."""
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"hydra-remote-launcher {__version__}\n"


def test_help_lists_every_command_and_loads_none() -> None:
    """It imports no command, and neither Hydra, fabric nor rich, nor a library of command lines."""
    code = (
        "import sys\n"
        "from launcher.cli import main as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        "heavy = ('hydra', 'fabric', 'paramiko', 'omegaconf', 'rich', 'cloudpickle', 'launcher.session.session')\n"
        "print('LOADED', [name for name in heavy if name in sys.modules], "
        "[name for name in sys.modules if name.startswith('launcher.cli.commands.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "LOADED [] []" in done.stdout
    for name, entry in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert entry.help.split()[0] in done.stdout


def test_every_command_can_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    """Its line in the table names a function whose parameters are declared as the parser needs it."""
    for name in COMMANDS:
        assert ended(name, "--help") == 0
        assert "Usage: launcher" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("run", "(default: this machine)"),
        ("run", "(default: trusted)"),
        ("run", "(default: 5m)"),
        ("clean", "(default: all that your runs used)"),
        ("reproduce", "(default: safe)"),
    ],
)
def test_the_help_of_a_command_has_its_own_defaults(
    name: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """This also holds if they differ from those of a run."""
    ended(name, "--help")
    assert default in " ".join(capsys.readouterr().out.split())


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A typo is a usage error."""
    assert ended("mutlirun") == 2
    assert "did you mean 'multirun'?" in capsys.readouterr().err


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A typo in an option is a usage error too."""
    assert ended("run", "--hots", "gpu1", "my_app.py") == 2
    assert "--host" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of a usage error, for scripts."""
    assert ended() == 2
    captured = capsys.readouterr()
    assert "multirun" in captured.out + captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LauncherError("odd"), 1),
        (UsageError("no such thing"), 2),
        (RunInterrupted("Ctrl-C"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_are_one_message_and_an_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is raised on purpose has no traceback."""

    def raising() -> None:
        """Raise."""
        raise error

    monkeypatch.setitem(COMMANDS, "raising", Command(f"{__name__}:_unused", "Raise."))
    monkeypatch.setattr(sys.modules[__name__], "_unused", raising, raising=False)
    assert ended("raising") == code
    captured = capsys.readouterr()
    assert captured.err.startswith("launcher: ")
    assert "Traceback" not in captured.err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With LAUNCHER_DEBUG=1 every error has one."""
    monkeypatch.setenv("LAUNCHER_DEBUG", "1")
    with pytest.raises(UsageError):
        cli.main(["run", "nothing.py"])


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({}, {}),
        ({"hosts": ["gpu1", "gpu2/2"]}, {"hosts": ("gpu1", "gpu2/2")}),
        ({"hosts_file": "hosts.yaml"}, {"hosts_file": "hosts.yaml"}),
        ({"env": ["PATH", "MODE=fast=1"]}, {"forward_env": ("PATH",), "env": {"MODE": "fast=1"}}),
        ({"outputs": False}, {"outputs": False}),
        ({"output": ["*.json", "model/*"]}, {"outputs": ("*.json", "model/*")}),
        ({"retries": ["2"]}, {"retries": 2}),
        ({"retries": ["killed=3", "lost=1"]}, {"retries": {"killed": 3, "lost": 1}}),
        ({"retries": ["killed=3", "1"]}, {"retries": {"killed": 3, "*": 1}}),
        ({"on_error": ["upload=abort"]}, {"on_error": {"upload": "abort"}}),
        ({"allow_types": ["a.B"]}, {"allow_types": ("a.B",)}),
        ({"timeout": "30m", "setup": [], "live": None}, {"timeout": "30m"}),
    ],
)
def test_options_become_fields(given: dict[str, Any], values: dict[str, Any]) -> None:
    """An option that was not given sets no field; LaunchConf accepts the others."""
    made = flags.conf_values(given)
    assert made == values
    LaunchConf().replaced(**made)


@pytest.mark.parametrize(
    "given",
    [
        {"env": ["SURELY_NOT_SET_ANYWHERE"]},
        {"retries": ["often"]},
        {"retries": ["killed=x"]},
        {"on_error": ["upload"]},
        {"outputs": True, "output": ["*"]},
    ],
)
def test_an_option_with_a_wrong_form_is_refused(given: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(UsageError, match="--"):
        flags.conf_values(given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_app.py"], "no such file"),
        (["my_app.py:tarin"], "tarin"),
        (["my_app.py:train", "x=["], "no viable alternative"),
        (["my_app.py:train", "x=1,2"], "x=1,2"),
        (["my_app.py:train", "--timeout", "soon"], "timeout"),
        (["my_app.py:train", "--isolation", "none"], "isolation"),
        (["my_app.py:train", "--host", "a/b"], "a/b"),
        (["my_app.py:train", "--host", "a", "--host", "a"], "twice"),
        (["my_app.py:train", "--hosts", "nowhere.yaml"], "nowhere.yaml"),
        (["my_app.py:train", "--callback", "my_app:Nothing"], "Nothing"),
        (["my_app.py:train", "--callback", "my_app"], "module:Class"),
        (["my_app.py:train", "--on-error", "nobody=fail"], "nobody"),
        (["my_app.py:train", "--config-dir", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    arguments: list[str],
    message: str,
    project: Path,
    command: Callable[..., Done],
) -> None:
    """Exit code 2, one message that names the problem, and no folder of a run."""
    done = command("run", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == ["my_app.py"]


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_a_plain_function(command: Callable[..., Done], project: Path) -> None:
    """Options may come before and after APP, and a callback is added.

    stdout has only what hooks and job print, in order. The exit code is 0.
    """
    done = command(
        "run", "--timeout", "90", "my_app.py:train", "x=3", "--callback", "my_app:Recorder", "--folder", "out"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "hook: on_run_start",
        "hook: on_job_start",
        "training with {'x': 3}",
        "hook: on_job_end COMPLETED",
        "hook: on_run_end COMPLETED",
    ]
    assert "1 completed, 0 failed" in done.stderr
    assert (project / "out" / ".hydra" / "config.yaml").read_text() == "x: 3\n"


@pytest.mark.slow
def test_a_sweep_reports_its_failures(command: Callable[..., Done], project: Path) -> None:
    """One job raises, one is killed, one completes.

    The exit code is 1, failures come first, there is a traceback, and all hooks fire.
    """
    done = command(
        "multirun", "my_app.py:train", "+fail=false,true", "+kill=false,true", "--callback", "my_app:Recorder",
        "--folder", "out", "--host", "local/2",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = [line.split()[:3] for line in done.stdout.splitlines() if " local " in line and line.strip()[0].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "0"]
    assert [row[2] for row in rows] == ["FAILED", "FAILED", "FAILED", "COMPLETED"]
    assert "2 jobs (2, 3): ValueError: as asked" in done.stdout
    assert 'raise ValueError("as asked")' in done.stdout
    assert "killed by SIGKILL" in done.stdout
    assert "hook: on_multirun_end ['COMPLETED', 'FAILED', 'FAILED', 'FAILED']" in done.stdout
    for num in range(4):
        status = "COMPLETED" if num == 0 else "FAILED"
        assert f"hook: on_job_end {status}" in (project / "out" / str(num) / ".launcher" / "stdout").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "code"), [("fail=true,false x=1,2", 1), ("x=1,2", 0)])
def test_a_closed_pipe_changes_no_exit_code(project: Path, overrides: str, code: int) -> None:
    """`launcher ... | head -1` is common. The outcome of the jobs stays the same."""
    script = f"{sys.executable} -c '{MAIN}' multirun my_app.py:train {overrides} ; echo exit $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({script}) | head -1"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("run ")
    assert done.stderr == f"exit {code}\n"


@pytest.mark.slow
def test_json_is_the_report_and_nothing_else(command: Callable[..., Done]) -> None:
    """What a callback prints goes to stderr."""
    done = command("multirun", "my_app.py:train", "fail=true,false", "--callback", "my_app:Recorder", "--json")
    assert done.returncode == 1
    report = done.report
    assert (report["exit_code"], report["jobs"], report["completed"], report["failed"]) == (1, 2, 1, 1)
    assert report["failures"][0]["overrides"] == ["fail=True"]
    assert "as asked" in report["distinct_failures"][0]["error"]["traceback"]
    assert Path(report["folder"]).is_dir()
    assert "hook: on_multirun_end" in done.stderr


def test_json_reports_usage_errors_too(command: Callable[..., Done]) -> None:
    """A script needs to read only one place."""
    done = command("run", "nothing.py", "--json")
    assert done.returncode == 2
    assert done.report["exit_code"] == 2
    assert done.report["error"]["type"] == "UsageError"
    assert "nothing.py" in done.stderr


def test_a_run_without_a_usable_host_fails(command: Callable[..., Done]) -> None:
    """The exit code is 3. The message names the host and the phase."""
    done = command("run", "my_app.py:train", "--host", "no-such-host.invalid", "--json")
    assert done.returncode == 3
    assert done.report["hosts"][0]["state"] == "unusable"
    assert "no-such-host.invalid" in done.stderr


def test_a_callback_may_abort_the_run(command: Callable[..., Done]) -> None:
    """The run stops and names the callback, and no job has run."""
    done = command("run", "my_app.py:train", "--callback", "my_app:Broken")
    assert done.returncode == 1
    assert "Broken" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
    assert "1 completed" not in done.stderr


@pytest.mark.slow
def test_a_plain_function_may_have_a_config_folder(command: Callable[..., Done], project: Path) -> None:
    """With --config-dir and --config-name a plain function is composed as a Hydra app is."""
    (project / "conf").mkdir()
    (project / "conf" / "base.yaml").write_text("x: 5\n")
    done = command("run", "my_app.py:train", "--config-dir", "conf", "--config-name", "base")
    assert done.returncode == 0, done.stderr
    assert "training with {'x': 5}" in done.stdout


SWEEPER = '''
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class HalvingSweeper(BasicSweeper):
    """A sweeper of the app's own: the second batch depends on what the first one returned."""

    def __init__(self, **options):
        super().__init__(max_batch_size=None)

    def sweep(self, arguments):
        first = self.launcher.launch([["x=1"], ["x=8"]], initial_job_idx=0)
        best = max(first, key=lambda one: one.return_value)
        second = self.launcher.launch([[f"x={best.return_value}"]], initial_job_idx=2)
        return [first, second]
'''


@pytest.mark.slow
def test_an_app_may_have_its_own_sweeper(project: Path) -> None:
    """It chooses its jobs batch by batch, from the results so far. Run hooks fire once around all of them.

    This runs in its own process, because Hydra looks for plugins only once per process.
    """
    (project / "hydra_plugins").mkdir()
    (project / "hydra_plugins" / "halving.py").write_text(SWEEPER)
    (project / "conf").mkdir()
    (project / "conf" / "config.yaml").write_text("x: 0\n")
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "multirun", "my_app.py:train", "--config-dir", "conf", "--live"]
        + ["--callback", "my_app:Recorder", "hydra.sweeper._target_=hydra_plugins.halving.HalvingSweeper"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hook: on_multirun_end ['COMPLETED', 'COMPLETED', 'COMPLETED']" in done.stdout
    assert "[2 local] training with {'x': 16}" in done.stdout


@pytest.mark.slow
def test_a_package_module_over_ssh(project: Path, command: Callable[..., Done], demo_server: DemoServer) -> None:
    """`package.module:function` is found from the working folder. The package's other modules are sent, too."""
    package = project / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "values.py").write_text("FACTOR = 7\n")
    (package / "work.py").write_text(
        "from package.values import FACTOR\n\n\ndef task(cfg):\n    print('value', cfg.x * FACTOR)\n"
    )
    hosts = f"far: {{address: {demo_server.alias}, ssh_config: {demo_server.ssh_config}, python: {sys.executable}}}\n"
    (project / "hosts.yaml").write_text(hosts)
    done = command("multirun", "package.work:task", "x=1,2", "--hosts", "hosts.yaml", "--live", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[0 far] value 7" in done.stdout
    assert "[1 far] value 14" in done.stdout
    assert "code sent" in done.stdout


@pytest.mark.slow
def test_ctrl_c_cancels_collects_and_fires_the_hooks(project: Path) -> None:
    """The exit code is 130, the end hooks of the job and the run have fired, and no process is left."""
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "multirun", "my_app.py:train", "wait=true", "--live", "--folder", "out"]
        + ["--callback", "my_app:Recorder"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line.strip())
            if line.strip() == "[0 local] waiting":
                process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
        guard.cancel()
    assert process.returncode == 130, stderr
    assert "hook: on_multirun_end ['FAILED']" in seen
    assert any("cancelled" in line for line in seen)
    assert "hook: on_job_end FAILED" in (project / "out" / "0" / ".launcher" / "stdout").read_text()
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_ctrl_c_of_a_whole_pipeline_is_an_interrupt(project: Path) -> None:
    """With `launcher ...

    | cat`, Ctrl-C also ends `cat`, so nobody reads the report. The exit code is 130, and stderr says so.
    """
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "multirun", "my_app.py:train", "wait=true", "--live", "--folder", "out"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        guard = threading.Timer(60, process.kill)
        guard.start()
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.strip() == "[0 local] waiting":
                break
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        process.wait()
        guard.cancel()
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
