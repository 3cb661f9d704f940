"""Makes the setup of a run again from its journal, after another controller began the run.

Rule: all of it comes from the journal, and nothing is guessed. The kind of run is looked up in the table below by its
name in the journal. Nothing is imported because its name is in a journal.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.code.application.application import import_or_read
from launcher.code.files.snapshot import Snapshot
from launcher.errors import CallbackError, JournalError, RunError, UsageError
from launcher.runs import index, ownership
from launcher.runs import record as run_record
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.record import RunRecord
from launcher.serialization import pickler as pickling
from launcher.setup.earlier import kept_folders
from launcher.setup.jobs.run_pickler import RunPickler
from launcher.setup.kinds.run_setup import RunSetup
from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.hydra.compat import instantiate

__all__ = ["load_setup"]


def load_setup(
    run: str | os.PathLike[str], *, env: Mapping[str, str] | None = None, needs_env: bool = True
) -> tuple[RunSetup, RunRecord]:
    """Make a run's setup again from its journal.

    Args:
        env: values of its variables. Others are taken from the environment.
        needs_env: whether a variable without a value is an error.

    Raises:
        RunError: there is no such run, or it cannot be resumed.
        UsageError: a variable has no value.
    """
    entry = index.find(run)
    ownership.check_ours(entry.folder)
    with JournalReader(entry.folder / FOLDER) as reader:
        record = run_record.read(reader)
        values = {**os.environ, **(env or {})}
        missing = [name for name in run_record.variables(record) if name not in values]
        if missing and needs_env:
            raise UsageError(
                f"run {record.run}: its jobs had variables whose values are not stored; set them again in the "
                f"environment: {', '.join(missing)}"
            )
        return _setup(entry.folder.absolute(), record, reader, values), record


def _setup(folder: Path, record: RunRecord, reader: JournalReader, env: Mapping[str, str]) -> RunSetup:
    for path in record.sys_path:
        # The application's modules are imported from the same place as before.
        if path not in sys.path:
            sys.path.append(path)
    options = run_record.options_of(record, env)
    cls, more = _kind(record, reader)
    pickler = RunPickler(record.main_module)
    manifest = reader.blob("manifest")
    snapshot = None
    if record.code is not None and manifest is not None:
        snapshot = Snapshot.of_manifest(
            Path(record.code["root"]), manifest, record.code["commit"], record.code["dirty"]
        )
    return cls(
        mode=record.mode,
        run_id=record.run,
        folder=folder,
        hosts=tuple(run_record.hosts_of(record, env)),
        options=options,
        callbacks=_callbacks(record, reader, pickler.loads),
        task=record.task,
        task_name=record.task_name,
        configs=(),
        root_config=_root_config(reader, pickler.loads),
        config_name=record.config_name,
        root=Path(record.root) if record.root else None,
        main_module=record.main_module,
        callback_specs=record.callback_specs,
        first_num=record.first_num,
        snapshot=snapshot,
        locks=_locks(record, reader),
        kept_folders=kept_folders(reader),
        traceparent=reader.meta().get("traceparent", ""),
        fired_elsewhere=frozenset(record.fired_elsewhere) - {"on_multirun_end", "on_run_end"},
        **more,
    )


def _locks(record: RunRecord, reader: JournalReader) -> dict[str, Any]:
    """The packages of each host's environment."""
    data = reader.blob("environments")
    if not data:
        return {}
    from launcher.environments.lock import locks_from_bytes

    try:
        return locks_from_bytes(data)
    except ValueError as error:
        raise JournalError(
            f"run {record.run}: the packages of its environments in the journal are damaged: {error}"
        ) from None


def _kind(record: RunRecord, reader: JournalReader) -> tuple[type[RunSetup], dict[str, Any]]:
    """Return the class of the setup, and the other arguments that its kind needs."""
    from launcher.setup.kinds.hydra import HydraSetup
    from launcher.setup.kinds.plain_app import PlainAppSetup

    cls = _kinds().get(record.kind_name)
    if cls is None:
        raise RunError(
            f"run {record.run} is of the kind {record.kind!r}, which this version of the launcher does not know; "
            "resume it with the version that began it, or a later one"
        )
    if cls is PlainAppSetup:
        from launcher.config.plain import PlainComposition

        return cls, {"composition": PlainComposition(_Named(record.task_name))}  # type: ignore[arg-type]
    return cls, {"compose": _composer(record, reader)} if cls is HydraSetup else {}


def _kinds() -> dict[str, type[RunSetup]]:
    """Return every kind of run that can be resumed, by its name in journals. A name is never changed or reused."""
    from launcher.setup.kinds.again import HydraAgain, PlainAgain
    from launcher.setup.kinds.hydra import HydraSetup
    from launcher.setup.kinds.plain_app import PlainAppSetup
    from launcher.setup.kinds.probe import ProbeSetup

    known = (RunSetup, PlainAppSetup, HydraSetup, PlainAgain, HydraAgain, ProbeSetup)
    return {cls.kind: cls for cls in known}


@dataclasses.dataclass(frozen=True)
class _Named:
    """The part of an application that composing from overrides needs."""

    name: str


def _composer(record: RunRecord, reader: JournalReader) -> Callable[[Sequence[str], int, str], Any]:
    """Compose the remaining jobs of a Hydra app, from the files as they are now."""

    @functools.lru_cache(maxsize=1)
    def made() -> tuple[Any, Any]:
        from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
        from hydra._internal.hydra import Hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.plugins import Plugins

        from launcher.config.hydra import make_loader

        if record.main_module:
            # The application registers its structured configs, and Hydra's version base, when it is imported.
            import_or_read(record.task if isinstance(record.task, str) else record.main_module, _below(record))
        # Config sources may be plugins.
        Plugins.instance()
        root = pickling.loads(reader_blob, main_module=record.main_module)
        search_path = ConfigSearchPathImpl()
        for source in root.hydra.runtime.config_sources:
            search_path.append(str(source.provider), f"{source.schema}://{source.path}")
        loader = make_loader(search_path)
        GlobalHydra.instance().clear()
        GlobalHydra.instance().initialize(Hydra(task_name=record.task_name, config_loader=loader))
        return loader, root

    reader_blob = reader.blob("root_config") or b""

    def compose(overrides: Sequence[str], num: int, job_id: str) -> Any:
        from launcher.config.job_config import numbered

        loader, root = made()
        return numbered(loader.load_sweep_config(root, list(overrides)), num, job_id)

    return compose


def _below(record: RunRecord) -> Path:
    """The folder that has the application's modules."""
    root = Path(record.root) if record.root else Path.cwd()
    return root.parent if root.suffix == ".py" else root


def _callbacks(record: RunRecord, reader: JournalReader, loads: Callable[[bytes], Any]) -> Callbacks:
    """Return the callbacks with the state that was last stored.

    Raises:
        CallbackError: one of them can be neither loaded nor built.
    """
    data = reader.blob("callbacks")
    if not data:
        return Callbacks([])
    stored = loads(data)
    if not isinstance(stored, list):
        raise CallbackError(
            "the callbacks in the run's journal are not a list of callbacks: the journal is damaged, or another "
            "program wrote it"
        )
    entries = []
    for item in stored:
        instance, note = None, ""
        if item["pickle"] is not None:
            try:
                instance = loads(item["pickle"])
            except Exception as error:
                if item["spec"] is None:
                    raise CallbackError(
                        f"run {record.run}: callback {item['name']!r} cannot be loaded here: "
                        f"{type(error).__name__}: {error}; make its module importable (PYTHONPATH) and resume the run "
                        "again"
                    ) from error
                note = f"callback {item['name']!r} is built anew from its spec: {type(error).__name__}: {error}"
        if instance is None:
            instance, why = _built(item["spec"])
            note = note or f"callback {item['name']!r} {why}"
        entries.append(Entry(item["name"], instance, item["on_error"], item["spec"], note))
    return Callbacks(entries)


def _built(spec: dict[str, Any]) -> tuple[Any, str]:
    try:
        return instantiate(spec), "is built anew from its spec"
    except Exception as error:  # noqa: BLE001
        return None, f"cannot be built here, its controller hooks are off: {type(error).__name__}: {error}"


def _root_config(reader: JournalReader, loads: Callable[[bytes], Any]) -> Any:
    data = reader.blob("root_config")
    return loads(data) if data else None
