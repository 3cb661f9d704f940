"""Runs a job again here, in a debugger, or on a host, and says whether it ends the same way.

Rule: hooks fire only if that was asked for, and only the job's own, because the run's hooks belong to the run.
`launcher.reproduce.find` says which job it is and what it needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from launcher.bootstrap.bundle import build_bundle, unpack
from launcher.code.files.snapshot import Snapshot
from launcher.environments.lock import Lock
from launcher.environments.source import NONE
from launcher.errors import HostError, LauncherError, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import host_specs
from launcher.options import LaunchConf
from launcher.preparation import build_environments
from launcher.reproduce.compare import Comparison, Outcome, compare, recorded_outcome, stored_outcome
from launcher.reproduce.find import find_target
from launcher.reproduce.target import Target, decoder_of
from launcher.results.job_returns import environment_of
from launcher.runs.journal import FOLDER, JournalReader, StoredResult
from launcher.session.session import Observer, Session, SessionConf
from launcher.setup.folders import folder_for
from launcher.setup.kinds.again import HydraAgain, PlainAgain
from launcher.setup.kinds.run_setup import RunSetup
from launcher.transports.early_connections import EarlyConnections
from launcher.util.user_folders import cache_folder
from remote_agent.job import JobError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.job import ForkSpec

__all__ = ["Reproduction", "reproduce"]

#: The debugger's program, under a Python that has no package of ours.
_DEBUGGER = "import sys; sys.path.pop(0); from remote_agent.debugger import main; sys.exit(main(sys.argv[1]))"


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The result. `comparison` is None if there was nothing to compare with.

    `environment` is the key of the environment that it ran in, and `environment_before` the one of the first time. They are
    empty if there was none.
    """

    target: str
    folder: Path
    after: Outcome
    comparison: Comparison | None
    environment: str
    environment_before: str


def reproduce(
    job: str,
    options: LaunchConf,
    *,
    app: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    is_exact: bool = False,
    with_hooks: bool = False,
    in_debugger: bool = False,
    early: EarlyConnections | None = None,
    tell: Callable[[str], None] = lambda note: None,
    show: Callable[[], AbstractContextManager[Observer | None]] = contextlib.nullcontext,
) -> Reproduction:
    """Run a job again, on a host or here, and compare how it ends.

    Args:
        job: see `find_target`.
        options: its variables (`env`) replace those of the environment; its policy of results says what is decoded to compare it.
        app: the application, if no record says which it is.
        folder: the new output directory.
        is_exact: run the code that the run recorded, in an environment of the packages that it had, and not the code as it is now.
        with_hooks: fire the job's hooks, of the callbacks that the run sent.
        in_debugger: run it here in the foreground. If it fails, pdb starts.
        early: connections that were begun earlier.
        tell: is told what the user should know before it runs.
        show: opened while it runs; gives an observer of its events.

    Raises:
        UsageError: there is no such job, or it cannot be run again in this way. Nothing was sent.
        RunError: there is no such run, or its record cannot be read.
    """
    target = find_target(job, app=app, env=options.env, results=options.results)
    for note in target.notes:
        tell(note)
    setup = _set_up(target, options, folder, is_exact=is_exact, with_hooks=with_hooks)
    if in_debugger:
        where, after, key = _debug(setup)
    else:
        with show() as observer:
            where, after, key = _run(setup, SessionConf([observer] if observer else (), early=early))
    comparison = compare(target.before, after) if target.before is not None else None
    return Reproduction(target.name, where, after, comparison, key, target.environment)


def _set_up(
    target: Target,
    options: LaunchConf,
    folder: str | os.PathLike[str] | None,
    *,
    is_exact: bool,
    with_hooks: bool,
) -> PlainAgain | HydraAgain:
    asked = options.replaced(env={**target.env, **options.env})
    where, naming = folder_for("RUN", folder)
    specs = tuple(host_specs(None, asked))
    setup = dataclasses.replace(
        target.setup,
        options=asked,
        hosts=specs,
        locks=_locks(target, specs, is_exact=is_exact),
        folder=where,
        naming=naming,
        is_exact=is_exact,
        # What is asked for now counts.
        needs=None if asked.resources else target.setup.needs,
    )
    if is_exact and setup.snapshot is None:
        raise UsageError(
            f"{target.name}: the code that it ran was not recorded (it was used in place, or there is no record of the "
            "run); without --exact it runs the code as it is now"
        )
    if with_hooks:
        return dataclasses.replace(setup, callbacks=target.built_callbacks()).with_code()
    return setup.without_callbacks().with_code()


def _locks(target: Target, specs: Sequence[HostSpec], *, is_exact: bool) -> dict[str, Lock]:
    """The packages of each host: those that the job had. Without `is_exact`, this machine's jobs run under this Python."""
    known = target.setup.locks
    locks = {spec.name: known.get(spec.name, target.lock) for spec in specs if spec.environment != NONE}
    here = {spec.name for spec in specs if spec.is_local and spec.name not in known and not is_exact}
    return {name: lock for name, lock in locks.items() if lock is not None and name not in here}


def _run(setup: PlainAgain | HydraAgain, conf: SessionConf) -> tuple[Path, Outcome, str]:
    """Run it like any job. Return its folder, its outcome, and the key of its environment."""
    with Session(setup, conf) as session:
        session.drive([(None, setup.overrides)], None)
    with JournalReader(session.folder / FOLDER) as reader:
        after = recorded_outcome(reader, 0, decoder_of(setup, setup.options.results))
    if after is None:
        raise LauncherError("the job did not return")
    return session.folder, after, environment_of(session.load(0).code)


def _debug(setup: PlainAgain | HydraAgain) -> tuple[Path, Outcome, str]:
    """Run it here, in a debugger. Return its folder, its outcome, and the key of its environment."""
    python, key = _python_here(setup)
    prepared = setup.prepare()
    # No journal is begun there. Its lock is held while the job writes.
    setup, claim = setup.take_folder()
    with tempfile.TemporaryDirectory(prefix="launcher-reproduce-") as name:
        scratch = Path(name)
        zygote = prepared.zygote_of(setup.hosts[0])
        if setup.is_exact and setup.snapshot is not None:
            code = scratch / "code"
            _lay_out(setup.snapshot, code)
            sys_path = [str(code / path) for path in zygote.sys_path]
            zygote = zygote._replace(cwd=str(code / zygote.cwd), sys_path=sys_path, code_root=str(code))
        spec = setup.queued(0, setup.overrides, setup.folder, "job", b"").spec
        job = ForkSpec(spec._replace(attempt=1, output_dir=str(setup.folder)), {}, str(scratch), "", [], 0).to_json()
        (scratch / "spec.json").write_text(json.dumps({"zygote": zygote.to_json(), "job": job}))
        (scratch / "shared").write_bytes(prepared.shared)
        (scratch / "payload").write_bytes(setup.payload)
        environment = {**os.environ, **zygote.environ}
        ours = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, environment.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "remote_agent.debugger", name]
        if python != sys.executable:
            # It finds no packages of this Python, and nothing of the folder in which the command was started.
            environment["PYTHONPATH"] = str(unpack(build_bundle(), cache_folder() / "agents"))
            command = [python, "-c", _DEBUGGER, name]
        # Ctrl-C is for the debugger, and does not stop this process.
        done = subprocess.run(command, env=environment, check=False)
        after = _debugged(scratch, setup, done.returncode)
    claim.release()
    return setup.folder, after, key


def _python_here(setup: RunSetup) -> tuple[str, str]:
    """The Python for a job in the foreground, and the key of its environment, which is built if it is not there.

    Raises:
        HostError: it cannot be had here.
    """
    if not setup.locks:
        return sys.executable, ""
    (done,) = build_environments(setup.hosts, setup.options, setup.locks, source=setup.environment_source)
    if not done.key:
        raise HostError(done.host, done.phase, done.why, done.next_step)
    return str(cache_folder() / "envs" / done.key / "bin" / "python"), done.key


def _lay_out(snapshot: Snapshot, folder: Path) -> None:
    """Write a snapshot's files into a new folder."""
    for file in snapshot.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(snapshot.read(file.sha256))
        path.chmod(file.mode & 0o777)
    for link, goal in snapshot.links:
        path = folder / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(goal)


def _debugged(scratch: Path, setup: RunSetup, exit_code: int) -> Outcome:
    told = scratch / "outcome.json"
    if not told.exists():
        return Outcome(
            "FAILED", JobError("exited", message=f"it ended with exit code {exit_code}", exit_code=exit_code)
        )
    said = json.loads(told.read_text())
    envelope, parts = Envelope.from_json(said["envelope"]), ResultParts.from_json(said["parts"]).without_file()
    if envelope.error is not None:
        return Outcome(envelope.status, envelope.error)
    if parts.value is None:
        return Outcome("COMPLETED")
    # The folder no longer exists when this is read.
    stored = StoredResult(0, 1, setup.hosts[0].name, envelope, parts, (scratch / "result").read_bytes(), None)
    return stored_outcome(stored, decoder_of(setup, setup.options.results))
