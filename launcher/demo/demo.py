"""`launcher demo`: a whole run on one machine, in which each promise is checked and not only shown.

Rule: a promise is printed as kept only after a check of JobReturns, events, files and processes. If one was not kept,
the exit code is 1. Nothing is left behind: server, keys, home, results and processes are removed.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from launcher import events
from launcher.demo.server import DemoServer, processes_with
from launcher.errors import HostKeyError
from launcher.hosts.host_spec import HostSpec
from remote_agent.job import JobReturn

__all__ = ["CASES", "Demo", "Promise"]

#: The sweep: three jobs that complete, one that raises, one that a signal kills.
CASES = ("slow", "steady", "fast", "diverges", "killed")
_CALLBACKS = ["first", "second"]
_HOST = "demo"


@dataclass(frozen=True)
class Promise:
    """Something that must be true, and whether it was. `why` says what was found instead."""

    text: str
    is_kept: bool
    why: str = ""


@dataclass
class Demo:
    """One demonstration.

    Args:
        say: called with each line.
        folder: where to keep the results; None removes them with everything else.
    """

    say: Callable[[str], None]
    folder: Path | None = None
    promises: list[Promise] = field(default_factory=list)
    _events: list[events.Event] = field(default_factory=list)
    _returns: list[JobReturn] = field(default_factory=list)

    def run(self) -> bool:
        """Run the demo. Returns whether every promise was kept."""
        with tempfile.TemporaryDirectory(prefix="launcher-demo-") as scratch:
            project = Path(scratch) / "project"
            _copy_app(project)
            sweep = self.folder if self.folder is not None else Path(scratch) / "results"
            with DemoServer(_HOST) as server:
                self._tell_server(server, project)
                self._check_host_key(server, Path(scratch))
                with _inside(project, Path(scratch)):
                    self._sweep(server, sweep)
                self._tell_returns()
                self._check_all(server, sweep)
            self._check_gone(server)
        self.say("")
        for promise in self.promises:
            self.say(f"  {'kept  ' if promise.is_kept else 'BROKEN'}  {promise.text}")
            if not promise.is_kept and promise.why:
                self.say(f"          {promise.why}")
        broken = sum(not promise.is_kept for promise in self.promises)
        self.say("")
        kept = (
            f"results are in {self.folder}"
            if self.folder is not None
            else "nothing of it is left (--folder DIR keeps the results)"
        )
        self.say(
            f"{broken} of {len(self.promises)} promises were broken"
            if broken
            else f"all {len(self.promises)} promises kept; {kept}"
        )
        return not broken

    def _promise(self, text: str, is_kept: bool, why: object = "") -> None:
        self.promises.append(Promise(text, bool(is_kept), str(why)))

    # -- the run -------------------------------------------------------------------------------------------------

    def _tell_server(self, server: DemoServer, project: Path) -> None:
        self.say(f"a throwaway SSH server listens on {server.host} port {server.port}; its sessions see another HOME")
        self.say(f"the app: {project / 'my_app.py'}; the same by hand would be")
        self.say(f"  launcher multirun my_app.py case={','.join(CASES)} --host {_HOST}/2 --live --verbose")
        self.say("")

    def _check_host_key(self, server: DemoServer, scratch: Path) -> None:
        """Check that a host with an unknown key is refused, with the fingerprint that it showed."""
        from launcher.transports.factory import make_transport

        nobody = scratch / "empty_known_hosts"
        nobody.touch()
        spec = _spec(server, known_hosts=str(nobody))
        transport = make_transport(spec)
        refusal = ""
        try:
            transport.open("true").close()
        except HostKeyError as error:
            refusal = str(error)
        finally:
            transport.close()
        self._promise("a host key that is not in known_hosts is refused", "SHA256:" in refusal, refusal or "it was not")

    def _sweep(self, server: DemoServer, sweep: Path) -> None:
        from launcher.app_run import prepare
        from launcher.code.application.application import load_application
        from launcher.display.lines import LineDisplay
        from launcher.display.tally import Tally
        from launcher.options import LaunchConf
        from launcher.session.session import Session, SessionConf

        display = LineDisplay(Tally(), self.say, hooks=True)
        app_run = prepare(
            "MULTIRUN",
            load_application("my_app.py"),
            [f"case={','.join(CASES)}"],
            options=LaunchConf(hosts=(_spec(server),), live=True),
            folder=str(sweep),
        )
        setup = app_run.setup
        # The display shows what a hook raises.
        setup.callbacks.report = lambda record: None
        with Session(setup, SessionConf([display, self._events.append])) as session:
            app_run.drive(session, False)
            self._returns = list(session.returns)
        app_run.close()

    def _tell_returns(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", title="JobReturns", title_justify="left")
        for name in ("num", "overrides", "host", "status", "return value or error", "time", "output"):
            table.add_column(name, overflow="fold")
        for one in self._returns:
            value = str(one.error) if one.error is not None else repr(one.return_value)
            files = sorted(path.name for path in Path(one.output_dir or "").iterdir())
            table.add_row(
                str(one.num),
                " ".join(one.overrides or []),
                one.host,
                one.status.name,
                value,
                f"{one.duration:.2f} s" if one.duration is not None else "-",
                " ".join(files),
            )
        console = Console(width=140, color_system=None)
        with console.capture() as capture:
            console.print(table)
        self.say("")
        for line in capture.get().splitlines():
            self.say(line.rstrip())

    # -- the promises --------------------------------------------------------------------------------------------

    def _check_all(self, server: DemoServer, sweep: Path) -> None:
        self._check_outcomes()
        self._check_controller_hooks()
        self._check_host_hooks()
        self._check_diaries(server, sweep)

    def _check_outcomes(self) -> None:
        by_case = dict(zip(CASES, self._returns, strict=False))
        statuses = {case: one.status.name for case, one in by_case.items()}
        wanted = {case: "FAILED" if case in ("diverges", "killed") else "COMPLETED" for case in CASES}
        self._promise("every job has its JobReturn, in order", statuses == wanted, statuses)
        values = [by_case[case].return_value for case in CASES[:3] if statuses.get(case) == "COMPLETED"]
        self._promise("return values came back", [isinstance(one, float) for one in values] == [True] * 3, values)
        failed = by_case["diverges"].error
        self._promise(
            "the failed job has its remote traceback",
            failed is not None and failed.kind == "exception" and "my_app.py" in failed.traceback,
            failed,
        )
        killed = by_case["killed"].error
        self._promise(
            "the killed job names its signal",
            killed is not None and killed.kind == "killed" and killed.signal == 9,
            killed,
        )
        hashes = {one.code.get("hash") for one in self._returns}
        self._promise("each JobReturn names the code that ran", len(hashes) == 1 and all(hashes), hashes)

    def _check_controller_hooks(self) -> None:
        fired = [
            (one.hook, one.callback)
            for one in self._events
            if isinstance(one, events.HookFired) and one.side == "controller"
        ]
        start, end = fired[:2], fired[-2:]
        returns = [callback for hook, callback in fired[2:-2] if hook == "on_job_return"]
        wanted_start = [("on_multirun_start", name) for name in _CALLBACKS]
        wanted_end = [("on_multirun_end", name) for name in reversed(_CALLBACKS)]
        self._promise(
            "controller: on_multirun_start fired first, in the order of hydra.callbacks", start == wanted_start, start
        )
        self._promise("controller: on_job_return fired for every job", returns == _CALLBACKS * len(CASES), returns)
        self._promise("controller: on_multirun_end fired last, in reverse", end == wanted_end, end)

    def _check_host_hooks(self) -> None:
        for case in ("diverges", "killed"):
            one = self._returns[CASES.index(case)]
            ends = [hook["callback"] for hook in one.hooks if hook["hook"] == "on_job_end" and hook["ok"]]
            what = "that failed" if case == "diverges" else "that was killed"
            self._promise(f"host: on_job_end fired for the job {what}", ends == _CALLBACKS[::-1], one.hooks)

    def _check_diaries(self, server: DemoServer, sweep: Path) -> None:
        """Check what the hooks wrote on the host, in the files that came back."""
        wanted, home, found, codes = [], str(server.home.resolve()), [], set()
        for num, case in enumerate(CASES):
            status = self._returns[num].status.name
            wanted.append(
                [f"{name}: on_job_start" for name in _CALLBACKS]
                + [f"{name}: on_job_end {status}" for name in _CALLBACKS[::-1]]
            )
            path = sweep / str(num) / "diary.txt"
            lines = (
                path.read_text(encoding="utf-8").splitlines()
                if path.exists()
                else [f"{case}: its callbacks wrote no file"]
            )
            found.append([line.partition(",")[0] for line in lines])
            codes |= {line.partition(", code ")[2] for line in lines if ", code " in line}
            started_by = {line.partition("controller ")[2].partition(",")[0] for line in lines if "controller " in line}
            if started_by != {str(os.getpid())}:
                found[-1].append(f"state set on the controller did not arrive: {started_by}")
        self._promise(
            "host: starts in order, ends in reverse, each once, and their files came back", found == wanted, found
        )
        self._promise(
            "the code ran from the snapshot on the host",
            bool(codes) and all(code.startswith(home) for code in codes),
            codes,
        )

    def _check_gone(self, server: DemoServer) -> None:
        left = processes_with(str(server.home))
        self._promise(
            "the server is stopped; no process and no file of it is left", not left and not server.home.exists(), left
        )


def _spec(server: DemoServer, known_hosts: str | None = None) -> HostSpec:
    # The server's sessions find this Python. Any python3 from 3.8 on would do for the agent.
    return HostSpec(
        name=_HOST,
        address=server.alias,
        slots=2,
        python=sys.executable,
        ssh_config=str(server.ssh_config),
        known_hosts=known_hosts,
    )


def _copy_app(project: Path) -> None:
    """Copy the example app into its own project, as a user would have it."""
    source = importlib.resources.files("launcher.demo") / "app"
    with importlib.resources.as_file(source) as path:
        shutil.copytree(
            path, project, ignore=shutil.ignore_patterns("__init__.py", "__pycache__", "outputs", "multirun")
        )


@contextlib.contextmanager
def _inside(project: Path, scratch: Path) -> Iterator[None]:
    """Work in the project's folder, with the controller's state (its index of runs) in a temporary folder."""
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.update({"XDG_STATE_HOME": str(scratch / "state"), "XDG_CACHE_HOME": str(scratch / "cache")})
    os.chdir(project)
    try:
        yield
    finally:
        os.chdir(before)
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            os.environ.pop(name)
            os.environ.update({name: environment[name]} if name in environment else {})
