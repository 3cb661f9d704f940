"""What a run would do: which jobs there would be, which hosts could take them, what would be sent and built.

Rule: no host is asked, and nothing is written to the run's folder. What only a host or a hook knows is named, and not guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.hosts.host_spec import HostSpec, said_size, said_too_little
from launcher.runs import folder as run_folder
from launcher.setup.prepared import PreparedRun, needed
from launcher.util.frozen import frozen

if TYPE_CHECKING:
    from launcher.engine.requests import QueuedJob
    from launcher.setup.earlier import EarlierJob
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["DryRun", "PlannedEnvironment", "PlannedHost", "PlannedJob", "plan_run"]


@frozen
class PlannedEnvironment:
    """The environment that a host would get.

    Attributes:
        source: the file from which its packages come.
        lock: the hash of its lock.
        last_key: the environment that the host had for this lock last; empty if there was none.
    """

    source: str
    lock: str
    last_key: str


@frozen
class PlannedHost:
    """A host as far as it is known without a login.

    Attributes:
        slots: how many jobs it runs at once; `auto` or None if only the host knows.
        has: how much of each resource the user says that it has.
        gets_code: whether the project is sent there. Otherwise it is used in place.
        jobs: how many of the run's jobs it could take.
    """

    name: str
    slots: int | str | None
    python: str | None
    has: Mapping[str, int | None]
    gets_code: bool
    environment: PlannedEnvironment | None
    jobs: int


@frozen
class PlannedJob:
    """A job as it would be.

    Attributes:
        needs: what it needs of its host; empty if that is one slot.
        hosts: those that could take it.
        config_bytes: the size of what is sent for it alone.
        taken_from: the job of an earlier run that has completed with the same config, so that this one does not run; otherwise empty.
        failure: (kind, message) if it would fail before it is sent.
    """

    num: int
    overrides: tuple[str, ...]
    output_dir: Path
    needs: Mapping[str, int]
    hosts: tuple[str, ...]
    config_bytes: int
    failure: tuple[str, str] | None = None
    taken_from: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        kind, message = self.failure or ("", "")
        return {
            "num": self.num,
            "overrides": list(self.overrides),
            "output_dir": str(self.output_dir),
            "resources": dict(self.needs),
            "hosts": list(self.hosts),
            "config_bytes": self.config_bytes,
            "taken_from": self.taken_from or None,
            "error": {"kind": kind, "message": message} if self.failure else None,
        }


@frozen
class DryRun:
    """What a run would do.

    Attributes:
        folder: where its results would be.
        jobs: its jobs; None if a sweeper decides them during the run.
        files, code_bytes: what is sent of the project, to a host that has nothing of it.
        shared_bytes: the size of what all jobs share: the task, and the callbacks.
        by_value: the names of what is pickled by value.
        warnings, notes: what the run would show before it connects.
        unknown: what cannot be known without a login.
    """

    mode: str
    task: str
    folder: Path
    hosts: tuple[PlannedHost, ...]
    jobs: tuple[PlannedJob, ...] | None
    files: int
    code_bytes: int
    shared_bytes: int
    by_value: tuple[str, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = field(default=())

    @property
    def running(self) -> list[PlannedJob]:
        """The jobs that would be run."""
        return [job for job in self.jobs or () if not job.taken_from]

    @property
    def failing(self) -> list[PlannedJob]:
        """The jobs that would fail before they are sent."""
        return [job for job in self.jobs or () if job.failure is not None]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        hosts = [
            {
                "name": host.name,
                "slots": host.slots,
                "python": host.python,
                "has": dict(host.has),
                "gets_code": host.gets_code,
                "environment": vars(host.environment) if host.environment is not None else None,
                "jobs": host.jobs,
            }
            for host in self.hosts
        ]
        return {
            "mode": self.mode,
            "task": self.task,
            "folder": str(self.folder),
            "jobs": len(self.jobs) if self.jobs is not None else None,
            "failing": len(self.failing),
            "hosts": hosts,
            "planned": [job.to_json() for job in self.jobs or ()],
            "files": self.files,
            "code_bytes": self.code_bytes,
            "shared_bytes": self.shared_bytes,
            "config_bytes": sum(job.config_bytes for job in self.jobs or ()),
            "by_value": list(self.by_value),
            "warnings": [{"source": source, "message": message} for source, message in self.warnings],
            "notes": list(self.notes),
            "unknown": list(self.unknown),
        }


def plan_run(setup: RunSetup, jobs: Iterable[Sequence[str]] | None) -> DryRun:
    """Plan a run, and check what the run itself would refuse only after its start hook.

    Args:
        jobs: the overrides of each; None if a sweeper decides them during the run.

    Raises:
        RunError: another run drives the folder.
        UsageError: something is wrong with the run.
    """
    setup = setup.in_folder(run_folder.look(setup.folder, setup.naming))
    prepared = setup.prepare()
    warnings, notes = prepared.warnings, prepared.notes
    taken: Mapping[int, EarlierJob] = {}
    if setup.continues is not None and jobs is not None:
        jobs = list(jobs)
        match = setup.continues.match(setup, setup.first_num, [(None, one) for one in jobs])
        changed, unknown = match.other_code(setup)
        warnings = (*warnings, *(("code", text) for text in changed))
        notes = (*notes, *match.notes, *unknown)
        taken = match.taken
        setup = dataclasses.replace(setup, kept_folders=setup.continues.kept_folders() - match.reused)
    planned = tuple(_jobs(setup, jobs, taken)) if jobs is not None else None
    snapshot = setup.snapshot
    counts = {spec.name: sum(spec.name in job.hosts for job in planned or ()) for spec in setup.hosts}
    return DryRun(
        mode=setup.mode,
        task=setup.task_name,
        folder=setup.folder,
        hosts=tuple(_host(setup, spec, counts[spec.name]) for spec in setup.hosts),
        jobs=planned,
        files=len(snapshot.files) if snapshot is not None else 0,
        code_bytes=snapshot.total if snapshot is not None else 0,
        shared_bytes=len(prepared.shared),
        by_value=setup.pickler.values,
        warnings=warnings,
        notes=notes,
        unknown=tuple(_unknown(prepared, planned)),
    )


def _jobs(setup: RunSetup, jobs: Iterable[Sequence[str]], taken: Mapping[int, EarlierJob]) -> Iterator[PlannedJob]:
    for num, overrides in enumerate(jobs, setup.first_num):
        earlier = taken.get(num)
        if earlier is not None:
            yield PlannedJob(num, tuple(overrides), earlier.output_dir, {}, (), 0, taken_from=earlier.name)
            continue
        made = setup.job(num, None, None, overrides)
        needs = _needs(setup, made)
        hosts = tuple(spec.name for spec in setup.hosts if not said_too_little(spec, needs)) if not made.failure else ()
        yield PlannedJob(
            num, made.overrides, made.output_dir, needs, hosts, len(made.payload or b""), failure=made.failure
        )


def _needs(setup: RunSetup, job: QueuedJob) -> dict[str, int]:
    own = job.spec.needs
    if own is None and setup.options.resources:
        own = needed(setup.options.resources)
    if own is None:
        return {}
    return {name: number for name, number in own.to_json().items() if number and name != "no_gpus"}


def _host(setup: RunSetup, spec: HostSpec, jobs: int) -> PlannedHost:
    return PlannedHost(
        name=spec.name,
        slots=spec.slots,
        python=setup.python_of(spec),
        has=said_size(spec),
        gets_code=setup.sends_code(spec) and setup.snapshot is not None,
        environment=_environment(setup, spec),
        jobs=jobs,
    )


def _environment(setup: RunSetup, spec: HostSpec) -> PlannedEnvironment | None:
    lock = setup.locks.get(spec.name)
    if lock is None:
        return None
    from launcher.setup.environments import LastKey

    return PlannedEnvironment(lock.name, lock.sha256, LastKey(lock, spec, setup.options).read() or "")


def _unknown(prepared: PreparedRun, jobs: Sequence[PlannedJob] | None) -> Iterator[str]:
    """Yield what only a login, a hook or a sweeper tells."""
    setup = prepared.setup
    hosts = setup.hosts
    if jobs is None:
        yield "which jobs there will be: the sweeper of this app decides them by the results of earlier ones"
    away = [spec.name for spec in hosts if not spec.is_local]
    if away:
        yield f"whether a host can be reached, has a known key and lets you in: {_names(away)}"
        yield "which parts of the code and of the environment a host has already; these are not sent again"
    asked = {name for job in jobs or () for name in job.needs} | set(setup.options.resources)
    if asked:
        lacking = [spec.name for spec in hosts if any(said_size(spec).get(name) is None for name in asked)]
        if lacking:
            yield f"how much a host has, and so how many jobs run there at once: {_names(lacking)}"
    else:
        open_slots = [spec.name for spec in hosts if not isinstance(spec.slots, int)]
        if open_slots:
            yield f"how many jobs a host runs at once (one per GPU or CPU, else one): {_names(open_slots)}"
    pythons = [spec.name for spec in hosts if setup.python_of(spec) is None]
    if pythons:
        yield f"which Python a host has: {_names(pythons)}"
    if setup.locks:
        yield "which environment a host gets: that depends on its Python and its system as they are then"
    hooks = [entry.name for entry in setup.callbacks if entry.hook(_start_hook(setup)) is not None]
    if hooks:
        yield f"what {_start_hook(setup)} changes in the config or in callbacks: {_names(hooks)}"


def _start_hook(setup: RunSetup) -> str:
    return "on_run_start" if setup.mode == "RUN" else "on_multirun_start"


def _names(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
