"""What hosts are told about a run. It is made from the setup after the start hook has fired, or read from the journal
of a resumed run.

Rule: a host is always told the same about the run's code, callbacks and interpreter. Each part is made once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from launcher.agents.plan import Blob, HostPlan
from launcher.errors import CallbackError, CodeError, PackagesError
from launcher.serialization.modules import out_of_reach
from remote_agent.callbacks.composite import Callbacks, callback_entries
from remote_agent.protocol.specs.resources import Resources
from remote_agent.protocol.specs.sync import SyncSpec
from remote_agent.protocol.specs.zygote import ControllerFacts, ZygoteSpec
from remote_agent.shared.versions import installed_version, version_note

if TYPE_CHECKING:
    from launcher.code.application.known_imports import ImportFacts
    from launcher.code.files.snapshot import Snapshot
    from launcher.environments.plan import EnvironmentSource
    from launcher.hosts.host_spec import HostSpec
    from launcher.options.launch_conf import LaunchConf
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["ZYGOTE", "PreparedRun", "needed", "prepare"]

#: The name of a run's only zygote on each host.
ZYGOTE = "z1"
#: How many names of things pickled by value a host is told.
_MAX_NAMED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run that is ready to be described to its hosts.

    Attributes:
        setup: what was asked for.
        shared: the pickle of what all jobs share: the task, and the callbacks with the state that they have now.
        told: for a resumed run, what each host's zygote was told before, without its environment.
        by_value, values: what was pickled by value before this setup pickled anything.
        warnings: (source, message) of warnings for the user before anything runs.
        notes: less important messages.
    """

    setup: RunSetup
    shared: bytes
    told: Mapping[str, ZygoteSpec] = dataclasses.field(default_factory=dict)
    by_value: bool = False
    values: tuple[str, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def plan_of(self, spec: HostSpec) -> HostPlan:
        """Return what a host must be told."""
        setup, shared, sha256 = self.setup, self.shared, self._shared_sha256
        snapshot = setup.snapshot if setup.sends_code(spec) else None
        return HostPlan(
            run=setup.run_id,
            slots=spec.slots,
            gpus=spec.gpus if not isinstance(spec.gpus, tuple) else list(spec.gpus),
            zygote=ZYGOTE,
            zygote_spec=self.zygote_of(spec),
            needs=needed(setup.options.resources) if setup.options.resources else None,
            size=Resources(0, spec.cpus or 0, spec.memory or 0),
            lease=setup.options.lease,
            live=bool(setup.options.live),
            sync=_sync(setup.options),
            batch=None if spec.slurm is None else {**spec.slurm, "workdir": spec.workdir},
            run_blobs=(Blob(sha256, len(shared), lambda: shared),),
            manifest=snapshot.hash if snapshot is not None else None,
            contents=_Contents(snapshot) if snapshot is not None else {},
            files=len(snapshot.files) if snapshot is not None else 0,
            environment=self._environment_of(spec),
            environment_python=spec.python or setup.options.python,
            environments_budget=setup.options.environments_budget,
            downloads=spec.downloads or False,
            remember_import=_rememberer(setup.import_keys.get(spec.name)),
            remember_environment=self._environment_rememberer(spec),
            explain=_explainer(self._explain(spec, in_job=False), snapshot),
            explain_job=_explainer(self._explain(spec, in_job=True), snapshot),
        )

    def zygote_of(self, spec: HostSpec) -> ZygoteSpec:
        """Return what a host's zygote is told about how to prepare the application. It is made once, and then stays the
        same.

        Only what was pickled by value is current, because a job's config may have added some.
        """
        told = self._zygotes.get(spec.name)
        if told is None:
            told = self._zygotes[spec.name] = self._new_zygote(spec)
        if spec.name in self.told:
            return told
        facts = told.controller._replace(by_value=self.has_values, values=list(self._all_values[:_MAX_NAMED]))
        return told._replace(controller=facts)

    def _explain(self, spec: HostSpec, *, in_job: bool) -> Callable[[Mapping[str, Any], Snapshot], str]:
        lock = self.setup.locks.get(spec.name)

        def explain(error: Mapping[str, Any], snapshot: Snapshot) -> str:
            # It is worked out for the error alone.
            from launcher.code.files.missing_modules import explained, explained_in_job
            from launcher.setup.environments import way_to_have

            return (explained_in_job if in_job else explained)(error, snapshot, way_to_have(self.setup, lock))

        return explain

    def _environment_of(self, spec: HostSpec) -> EnvironmentSource | None:
        """What says what a host installs; the same one whenever it is asked, because it remembers."""
        lock = self.setup.locks.get(spec.name)
        if lock is None:
            return None
        known = self._environments.get(spec.name)
        if known is None:
            known = self._environments[spec.name] = self.setup.environment_source(lock)
        return known

    def _environment_rememberer(self, spec: HostSpec) -> Callable[[str], None]:
        lock = self.setup.locks.get(spec.name)
        if lock is None:
            return lambda key: None
        from launcher.setup.environments import LastKey

        last = LastKey(lock, spec, self.setup.options)

        def remember(key: str) -> None:
            with contextlib.suppress(PackagesError):  # a full disk here costs a later run some time, and nothing else
                last.write(key)

        return remember

    @functools.cached_property
    def _environments(self) -> dict[str, EnvironmentSource]:
        return {}

    @property
    def has_values(self) -> bool:
        """Whether something was pickled by value."""
        return self.by_value or self.setup.pickler.by_value

    @property
    def _all_values(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.values, *self.setup.pickler.values]))

    @functools.cached_property
    def _zygotes(self) -> dict[str, ZygoteSpec]:
        return {}

    @functools.cached_property
    def _shared_sha256(self) -> str:
        return hashlib.sha256(self.shared).hexdigest()

    def _new_zygote(self, spec: HostSpec) -> ZygoteSpec:
        setup = self.setup
        environ = {**setup.options.variables(), **dict(spec.env)}
        is_sent = setup.sends_code(spec)
        code_blob = setup.snapshot.hash if is_sent and setup.snapshot is not None else None
        if spec.name in self.told:
            told = self.told[spec.name]
            return told._replace(environ=environ, code_blob=code_blob, values=told.values or setup.codec)
        import cloudpickle

        command = setup.command(is_sent)
        return ZygoteSpec(
            sys_path=list(dict.fromkeys([*setup.sys_path(is_sent), *setup.package_roots(spec)])),
            cwd=setup.cwd(is_sent),
            isolation=setup.options.isolation,
            main_module=setup.main_module,
            controller=ControllerFacts(
                python=list(sys.version_info[:2]),
                by_value=False,
                values=[],
                omegaconf=installed_version("omegaconf"),
                hydra=setup.hydra_version(),
                family_python=_python_of_family(),
                cloudpickle=cloudpickle.__version__,
            ),
            argv=command.argv,
            argv0_is_absolute=command.argv0_is_absolute,
            main_is_module=command.main_is_module,
            host=spec.name,
            code=setup.code if is_sent else {},
            environ=environ,
            setup=[*setup.options.setup, *spec.setup],
            python=setup.python_of(spec),
            shared=self._shared_sha256,
            values=setup.codec,
            code_blob=code_blob,
            environment=spec.name in setup.locks,
            warm=setup.options.warm,
            code_root=None,
            shared_file="",
            umask=0o022,
        )


def prepare(setup: RunSetup) -> PreparedRun:
    """Pickle what all jobs share.

    Raises:
        CallbackError: a callback cannot be pickled.
        CodeError: the task cannot be pickled.
    """
    dumps = setup.pickler.dumps
    try:
        to_hosts = [entry for entry in setup.callbacks if not getattr(entry.instance, "only_on_controller", False)]
        entries = callback_entries(Callbacks(to_hosts), dumps)
    except ValueError as error:
        raise CallbackError(str(error)) from error
    try:
        shared = dumps({"task": setup.task, "callbacks": entries, "hydra": setup.hydra_state()})
        setup.pickler.share(setup.task)
    except Exception as error:
        raise CodeError(f"the task {setup.task_name} cannot be pickled: {error}") from error
    warnings = [*setup.warnings, *(("callbacks", note) for note in setup.callbacks.notes)]
    warnings += [("code", text) for text in _out_of_reach(setup)]
    notes = (*setup.notes, *(setup.snapshot.notes if setup.snapshot is not None else ()))
    hydra = setup.hydra_version()
    if hydra and (note := version_note(hydra)):
        notes = (*notes, note)
    return PreparedRun(setup, shared, warnings=tuple(warnings), notes=notes)


def _out_of_reach(setup: RunSetup) -> list[str]:
    """Return a line for each module that jobs will import and no host has: it is neither installed here nor sent."""
    if not any(setup.sends_code(spec) for spec in setup.hosts):
        return []
    snapshot = setup.snapshot
    files = snapshot.has_file if snapshot is not None else lambda path: False
    return [
        f"module {name} ({file}), which the task or a callback needs, is not sent: {_why_it_stayed(file, snapshot)}; jobs fail on "
        "a host that does not have it"
        for name, file in out_of_reach(setup.pickler.modules, files)
    ]


def _why_it_stayed(file: str, snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return "the run sends no project code, and the module belongs to no installed package"
    from launcher.code.files.missing_modules import why_it_stayed

    return why_it_stayed(file, snapshot)


def _sync(options: LaunchConf) -> SyncSpec | None:
    """Return how hosts are to send output files of running jobs; None for not at all."""
    return (
        None
        if options.sync_outputs is None
        else SyncSpec(options.sync_outputs, list(options.sync_only), says_held=True)
    )


def needed(said: Mapping[str, int]) -> Resources:
    """Return what a job needs that says so. One that needs anything at all needs a CPU."""
    gpus = said.get("gpus")
    return Resources(
        gpus or 0,
        said.get("cpus", 1),
        said.get("memory", 0),
        said.get("nodes", 0),
        said.get("tasks", 0),
        said.get("time", 0),
        no_gpus=gpus == 0,
    )


def _explainer(
    explain: Callable[[Mapping[str, Any], Snapshot], str], snapshot: Snapshot | None
) -> Callable[[Mapping[str, Any]], str]:
    if snapshot is None:
        return lambda error: ""
    return lambda error: explain(error, snapshot)


def _rememberer(key: str | None) -> Callable[[ImportFacts], None]:
    def remember(facts: ImportFacts) -> None:
        if key is not None:
            from launcher.code.application import known_imports

            known_imports.remember(key, facts)

    return remember


class _Contents(Mapping[str, Blob]):
    """Every content of a snapshot, and every part of its manifest, made when a host asks for it. Only the files are listed and counted."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __getitem__(self, sha256: str) -> Blob:
        snapshot = self._snapshot
        if snapshot.has_content(sha256):
            return Blob(sha256, snapshot.size_of(sha256), lambda: snapshot.read(sha256))
        part = snapshot.manifest_parts[sha256]
        return Blob(sha256, len(part), lambda: part)

    def __len__(self) -> int:
        return len(self._snapshot.files)

    def __iter__(self) -> Iterator[str]:
        return (file.sha256 for file in self._snapshot.files)


def _python_of_family() -> list[int]:
    """Return the oldest Python, (major, minor), for the omegaconf installed here.

    Hosts without omegaconf get this one.
    """
    version = installed_version("omegaconf") or ""
    if version.startswith(("2.0", "2.1", "2.2", "2.3")):
        return []
    from importlib.metadata import metadata

    oldest = re.search(r">=\s*(\d+)\.(\d+)", metadata("omegaconf")["Requires-Python"] or "")
    return [int(part) for part in oldest.groups()] if oldest is not None else []
