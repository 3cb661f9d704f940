"""Whole runs with a hostile host. It is named, and the other host's jobs are not affected."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.agents import link
from launcher.demo.server import DemoServer
from launcher.errors import LauncherError, ResultNotDecoded
from launcher.hosts.host_spec import HostSpec
from launcher.results import output_folder
from launcher.results.job_returns import JobReturns

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
JOBS = 6

APP = """
import threading
import time
from pathlib import Path

import launcher


def task(cfg):
    deadline = time.monotonic() + 60
    while not Path(cfg.said).exists():
        assert time.monotonic() < deadline, "the hostile host said nothing"
        threading.Event().wait(0.01)
    Path(cfg.said + ".honest").touch()
    return cfg.num


class Watch(launcher.Callback):
    def __init__(self, path):
        self.path = path

    def _note(self, word):
        with open(self.path, "a") as file:
            file.write(word + "\\n")

    def on_job_return(self, config, job_return, **kwargs):
        assert config.num == job_return.num and "hydra" in config
        repr(job_return)
        self._note("return")

    def on_multirun_end(self, config, job_returns, **kwargs):
        [(one.status, one.error, one.duration) for one in job_returns]
        self._note("end")
"""


@dataclass
class Trial:
    """A run with a hostile host and an honest one. The honest one begins to work after the other has attacked."""

    folder: Path
    spec: HostSpec
    task: Callable[..., Any]
    seen: list[events.Event]

    @property
    def sweep(self) -> Path:
        """The folder of the run."""
        return self.folder / "sweep"

    def run(self, **options: Any) -> JobReturns:
        """Run the whole trial."""
        configs = [{"num": num, "said": str(self.folder / "said")} for num in range(JOBS)]
        return launcher.multirun(
            self.task,
            configs,
            hosts=[self.spec, "local/1"],
            folder=self.sweep,
            **{"on_host_loss": "retry", "host_loss_timeout": 0.5, "observers": [self.seen.append], **options},
        )

    def of(self, kind: type) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.seen if isinstance(event, kind)]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Trial]]:
    """Make a trial, by the name of the attack."""
    servers: list[DemoServer] = []
    project = tmp_path / "project"
    project.mkdir()
    (project / "hostile_app.py").write_text(APP)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(name: str) -> Trial:
        import hostile_app

        program = [sys.executable, str(ROOT / "tests" / "hosts" / "hostile.py"), name, str(tmp_path / "said")]
        shell = tmp_path / "shell"
        shell.write_text(f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(ROOT))}\nexec {shlex.join(program)}\n")
        shell.chmod(0o755)
        environment = {"HOSTILE_PICKLE": json.dumps(str(tmp_path / "loaded"))}
        server = DemoServer("hostile", shell=str(shell), environment=environment).__enter__()
        servers.append(server)
        return Trial(tmp_path, HostSpec("hostile", "hostile", ssh_config=str(server.ssh_config)), hostile_app.task, [])

    yield make
    for server in servers:
        server.stop()
    sys.modules.pop("hostile_app", None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        # Its start-up file is named where shell noise is what came.
        ("banner", "Welcome to the cluster.*bashrc"),
        ("noise", "bytes arrived before the agent.*bashrc"),
        ("mark", r"protocol \(mark\).*background job"),
        ("version", r"protocol \(version\).*version 9"),
        ("length", r"protocol \(size\).*9223372036854775808"),
        ("other_run", "belongs to run 'another-run'"),
        ("early", r"protocol \(order\).*before welcome"),
    ],
)
def test_a_host_that_never_speaks_the_protocol_is_unusable(trial: Callable[[str], Trial], name: str, told: str) -> None:
    """It is unusable, with the reason. The other host runs every job."""
    made = trial(name)
    returns = made.run()
    assert [one.return_value for one in returns] == list(range(JOBS))
    assert {one.host for one in returns} == {"local"}
    (unusable,) = made.of(events.HostUnusable)
    assert unusable.host == "hostile"
    assert re.search(told, f"{unusable.why} {unusable.next_step}", re.DOTALL), unusable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cut_short", "the link ended|session is gone|connection is gone"),
        ("garble", r"protocol \(mark\)"),
        ("drip", "the channel was closed"),
        ("deaf", "without reading the answers|the channel was closed"),
    ],
)
def test_a_host_that_turns_hostile_with_a_job_is_left(
    trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    """Its link is ended, and the host is reported as unknown.

    After the policy gives it up, its jobs run elsewhere. Each job has one result.
    """
    # The two that say nothing more are noticed by their silence. For all other tests the product's patience stays: on a
    # slow machine, a host would be given up that only had no turn yet.
    monkeypatch.setattr(link, "HEARTBEAT", 5.0 if name in ("drip", "deaf") else link.HEARTBEAT)
    made = trial(name)
    returns = made.run(retries={"lost": 3})
    assert [one.return_value for one in returns] == list(range(JOBS))
    assert {one.host for one in returns} == {"local"}
    unknown = made.of(events.HostUnknown)
    assert {one.host for one in unknown} == {"hostile"}
    assert re.search(told, unknown[0].why), unknown
    assert Counter(event.num for event in made.of(events.JobReturned)) == Counter(range(JOBS))


def lied(trial: Callable[[str], Trial], name: str, **options: Any) -> tuple[Trial, list[Any]]:
    """Run jobs on a host that lies about them, and return the JobReturns.

    Each job has one result, and the other host's results are its own.
    """
    made = trial(name)
    returns = made.run(results="safe", **options)
    assert Counter(event.num for event in made.of(events.JobReturned)) == Counter(range(JOBS))
    honest = [one for one in returns if one.host == "local"]
    assert honest
    assert [one.return_value for one in honest] == [one.num for one in honest]
    theirs = [one for one in returns if one.host == "hostile"]
    assert theirs
    return made, theirs


def test_a_result_that_is_replayed_counts_once(trial: Callable[[str], Trial]) -> None:
    """The first one counts. Later ones change nothing."""
    _, theirs = lied(trial, "replay")
    assert {one.return_value for one in theirs} == {"first"}


def test_messages_out_of_order_make_no_other_result(trial: Callable[[str], Trial]) -> None:
    """An end before the beginning counts once."""
    made, theirs = lied(trial, "disorder")
    assert {one.status.name for one in theirs} == {"COMPLETED"}
    assert len(made.of(events.JobReturned)) == JOBS


def test_results_of_other_hosts_jobs_are_not_accepted(trial: Callable[[str], Trial]) -> None:
    """Their files are not accepted either."""
    lied_about, theirs = lied(trial, "of_others")
    folders = {str(lied_about.sweep / str(num)) for num in range(JOBS)} - {one.output_dir for one in theirs}
    assert folders
    assert not [path for path in lied_about.sweep.rglob("stolen") if str(path.parent) in folders]


def test_output_files_stay_where_they_belong(trial: Callable[[str], Trial]) -> None:
    """Refused files are named, and the job is not affected. Accepted ones are plain files."""
    made, theirs = lied(trial, "files")
    warned = [one.message for one in made.of(events.Warned) if one.num == theirs[0].num]
    for part, why in [
        ("../escaped", "leads out"),
        ("a/../../escaped", "leads out"),
        ("/tmp/hostile-escaped", "leads out"),
        (".launcher/journal.sqlite", "reserved"),
        ("nul", "leads out"),
        ("n" * 256, "too long"),
        ("d/" * 100 + "deep", "folders deep"),
        ("good/below", ""),
        ("kept", ""),
        ("huge", "bytes"),
        ("gap", ""),
        ("kept/.launcher/journal.sqlite", "reserved"),
        *((f"link-{number}", "a link") for number in range(4)),
        ("by/through", ""),
    ]:
        assert any(part in one and why in one for one in warned), (part, warned)
    for one in theirs:
        found = {str(path.relative_to(one.output_dir)) for path in Path(one.output_dir).rglob("*") if path.is_file()}
        found = {name for name in found if not name.startswith(".launcher/")}
        assert found == {"good", "kept/well", "mode-0120777", "mode-0020666", "mode-0106777"}
        links = [path for path in Path(one.output_dir).rglob("*") if path.is_symlink()]
        assert [os.readlink(path) for path in links] == ["kept"]
        for path in Path(one.output_dir).rglob("mode-*"):
            assert stat.S_ISREG(path.lstat().st_mode)
            assert not path.lstat().st_mode & 0o7000
    assert not Path("/tmp/hostile-escaped").exists()
    # By `walk`, which does not mind that an agent takes leave meanwhile.
    assert [path for path, folders, files in os.walk(made.folder) if "escaped" in (*folders, *files)] == []


def test_files_beyond_the_cap_are_refused(trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of files is capped. The job's result stays."""
    make = output_folder.OutputFolder.__init__

    def small(self: Any, *arguments: Any, **more: Any) -> None:
        make(self, *arguments, **more)
        self.max_files = 150

    monkeypatch.setattr(output_folder.OutputFolder, "__init__", small)
    made, theirs = lied(trial, "many_files")
    assert any("more than 150 files" in one.message for one in made.of(events.Warned))
    for one in theirs:
        assert len(list(Path(one.output_dir).glob("f*"))) == 150


def test_invalid_plain_data_affects_only_that_result(trial: Callable[[str], Trial]) -> None:
    """It may be a pickle, have huge counts, or name classes that are not allowed.

    Each is one typed error that names the job and the host.
    """
    made, theirs = lied(trial, "plain")
    for one in theirs:
        assert one.status.name == "COMPLETED"
        for name in ("return_value", "cfg"):
            with pytest.raises(ResultNotDecoded, match=f"of job {one.num} on hostile"):
                getattr(one, name)
        # What is not described is the controller's own.
        assert one.hydra_cfg.hydra.job.num == one.num
        command = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"
        arguments = ["show", f"{made.sweep}#{one.num}"]
        done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "value: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("results", ["trusted", "safe", "never"])
def test_no_pickle_of_a_host_is_decoded_before_it_is_read(trial: Callable[[str], Trial], results: str) -> None:
    """Hooks, events and commands about the run do not decode it. Reading it decodes it only as the policy allows."""
    import hostile_app

    made = trial("pickled")
    loaded = made.folder / "loaded"
    watch = hostile_app.Watch(str(made.folder / "hooks"))
    returns = made.run(results=results, callbacks=[watch])
    theirs = [one for one in returns if one.host == "hostile"]
    assert theirs
    assert (made.folder / "hooks").read_text().split() == ["return"] * JOBS + ["end"]
    for arguments in (
        ["runs", "--json"],
        ["show", str(made.sweep)],
        ["show", str(made.sweep), "--json"],
        ["logs", f"{made.sweep}#{theirs[0].num}"],
        ["resume", str(made.sweep)],
        ["attach", str(made.sweep)],
    ):
        command = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
    assert not loaded.exists()
    for one in theirs:
        if results == "trusted":
            with contextlib.suppress(Exception):
                _ = one.return_value
            assert loaded.exists()
        else:
            with pytest.raises((LauncherError, launcher.RemoteJobError)):
                _ = one.return_value
            assert not loaded.exists()


# -- every command after what a host has said and left ----------------------------------------------------------------

_SHORT: list[list[str]] = [
    ["runs"],
    ["show", "{sweep}", "--all"],
    ["show", "{sweep}#{num}"],
    ["attach", "{sweep}", "--verbose"],
]
_COMMANDS: list[list[str]] = [
    *_SHORT,
    ["show", "{sweep}", "--json"],
    ["logs", "{sweep}#{num}", "--json"],
    ["retry", "{sweep}#999"],
    ["cancel", "{sweep}"],
    ["reproduce", "{sweep}#{num}", "--results", "never", "--folder", "{again}/1"],
    ["reproduce", "{link}/{num}", "--results", "safe", "--folder", "{again}/2"],
    ["reproduce", "{sweep}/{num}/../{num}/.hydra", "--folder", "{again}/3"],
    ["reproduce", "{copy}/{num}", "--folder", "{again}/4"],
    ["reproduce", "{copy}/{num}/.hydra", "--results", "never", "--folder", "{again}/5"],
    ["clean", "--dry-run", "--host", "local"],
]
_BAD = set("\x1b\x07\x9b\x85\u202e\u2028\ud800\r")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("name", "told", "commands"),
    [
        ("ugly", "", _COMMANDS),
        ("delivers_ours", "", _COMMANDS),
        ("aborts", "", _SHORT),
        ("many_hooks", "hooks of a job", _SHORT),
        ("gives_back", "", _SHORT),
        ("drops_and_opens", "", _SHORT),
        ("begins_files", "", _SHORT),
        ("begins_results", "", _SHORT),
    ],
)
def test_a_hostile_host_gains_nothing(
    trial: Callable[[str], Trial], name: str, told: str, commands: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever it sends and leaves, the other host's jobs complete, and so do those of a host that is given up.

    No command runs anything from it, no escape sequence reaches their output, nothing is written elsewhere, and journal
    and descriptors stay small.
    """
    import hostile_app

    from launcher.cli import main
    from launcher.display.tally import Tally
    from launcher.terminal.factory import make_display

    made = trial(name)
    watch = hostile_app.Watch(str(made.folder / "hooks"))
    before, most = _descriptors(), [0]

    def count(event: events.Event) -> None:
        most[0] = max(most[0], _descriptors())

    said = io.StringIO()
    with make_display(Tally(), said, verbose=True) as display:
        returns = made.run(
            callbacks=[watch],
            results="safe",
            retries={"lost": 3},
            observers=[made.seen.append, display, count],
        )
    assert Counter(event.num for event in made.of(events.JobReturned)) == Counter(range(JOBS))
    assert not made.of(events.RunInterrupt)
    honest = [one for one in returns if one.host == "local"]
    assert honest
    assert [one.return_value for one in honest] == [one.num for one in honest]
    if told:
        assert len(honest) == JOBS
        assert any(told in one.why for one in made.of(events.HostLost)), made.of(events.HostLost)
    assert most[0] < before + 200
    assert sum(path.stat().st_size for path in (made.sweep / ".launcher").rglob("*") if path.is_file()) < 8 << 20
    texts = [said.getvalue(), *(repr(one) + str(one.error) for one in returns)]
    theirs = next((one.num for one in returns if one.host == "hostile"), 0)
    (made.folder / "link").symlink_to(made.sweep)
    shutil.copytree(made.sweep, made.folder / "copy", ignore=shutil.ignore_patterns("journal*"))
    places = {place: made.folder / place for place in ("sweep", "link", "copy", "again")}
    for arguments in commands:
        capfd.readouterr()
        main._main([one.format(num=theirs, **places) for one in arguments])
        sys.stdout.flush()
        texts.append(" ".join(arguments) + "".join(capfd.readouterr()))
    for text in texts:
        assert not _BAD & set(text), text
    assert not (made.folder / "loaded").exists(), texts
    names = {"again", "copy", "hooks", "link", "project", "said", "said.honest", "shell", "state", "sweep"}
    assert {path.name for path in made.folder.iterdir()} <= names
    assert [path for path, folders, files in os.walk(made.folder) if "escaped" in (*folders, *files)] == []
    assert [path for path in made.sweep.rglob("journal.sqlite") if path.parent.parent != made.sweep] == []
