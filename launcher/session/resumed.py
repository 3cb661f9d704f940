"""Taking a run up again: after `--detach`, after SIGHUP, after `kill -9` of its controller.

Rule: the journal and the spools decide, nobody's memory. A job that has returned is never run again; a job that a host has
is collected; what no host has heard of is sent. The code is that of the run's beginning: hosts have it, and where one
lacks a file of it, that file is sent only if it is still the same here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import events
from launcher.code.snapshot import Snapshot
from launcher.engine.scheduler import HostPhase
from launcher.errors import CallbackError, RunError, UsageError
from launcher.results.job_returns import load_returned
from launcher.runs import index, ownership
from launcher.runs import record as run_record
from launcher.runs.journal import FOLDER, JournalReader
from launcher.runs.record import RunRecord
from launcher.serialization import pickler as pickling
from launcher.session.live_output import Live
from launcher.session.session import Observer, Session
from launcher.setup.base import RunSetup
from launcher.setup.prepared import PreparedRun
from launcher.setup.run_pickler import RunPickler
from remote_agent.callbacks.composite import Callbacks, Entry
from remote_agent.hydra.compat import instantiate

__all__ = ["ResumedSession", "load_setup"]

#: Seconds for which a host that has nothing left to give is waited for, to end its agent.
_PATIENCE = 10.0
#: What the first version wrote in place of the names of kinds: where their classes were then.
_FORMER_KINDS = {
    "launcher.run_setup:RunSetup": "function",
    "launcher.commands.app_setup:PlainAppSetup": "plain_app",
    "launcher.hydra_setup:HydraSetup": "hydra_app",
    "launcher.reproduce_target:PlainAgain": "job_again",
    "launcher.reproduce_target:HydraAgain": "hydra_job_again",
    "launcher.doctor:_Setup": "probe",
}


def load_setup(
    run: str | os.PathLike[str], *, env: Mapping[str, str] | None = None, needs_env: bool = True
) -> tuple[RunSetup, RunRecord]:
    """What a run was set up with, from its journal.

    Args:
        env: values of its variables; what is not here is taken from the environment.
        needs_env: a variable without a value is an error.

    Raises:
        RunError: there is no such run, or it cannot be taken up.
        UsageError: a variable has no value.
    """
    entry = index.find(run)
    ownership.check_ours(entry.folder)
    reader = JournalReader(entry.folder / FOLDER)
    try:
        record = run_record.read(reader)
        values = {**os.environ, **(env or {})}
        missing = [name for name in run_record.variables(record) if name not in values]
        if missing and needs_env:
            raise UsageError(
                f"run {record.run}: its jobs had variables whose values are kept nowhere; "
                f"set them again in the environment: {', '.join(missing)}"
            )
        return _setup(entry.folder.absolute(), record, reader, values), record
    finally:
        reader.close()


def _setup(folder: Path, record: RunRecord, reader: JournalReader, env: Mapping[str, str]) -> RunSetup:
    for path in record.sys_path:
        # The application's modules are imported from where they were.
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
        root=Path(record.root) if record.root else None,
        main_module=record.main_module,
        callback_specs=record.callback_specs,
        first_num=record.first_num,
        snapshot=snapshot,
        fired_elsewhere=frozenset(record.fired_elsewhere) - {"on_multirun_end", "on_run_end"},
        **more,
    )


def _kind(record: RunRecord, reader: JournalReader) -> tuple[type[RunSetup], dict[str, Any]]:
    """The class of the setup, and what its kind needs besides."""
    from launcher.setup.hydra import HydraSetup
    from launcher.setup.plain_app import PlainAppSetup

    cls = _kinds().get(_FORMER_KINDS.get(record.kind, record.kind))
    if cls is None:
        raise RunError(
            f"run {record.run}: it is a run of the kind {record.kind!r}, which this version of the launcher does not know; "
            "take it up with the version that began it, or a later one"
        )
    if cls is PlainAppSetup:
        from launcher.config.plain import PlainComposition

        return cls, {"composition": PlainComposition(_Named(record.task_name))}  # type: ignore[arg-type]
    return cls, {"compose": _composer(record, reader)} if cls is HydraSetup else {}


def _kinds() -> dict[str, type[RunSetup]]:
    """Every kind of run that can be taken up, by the name that stands in journals. A name is never changed nor used again."""
    from launcher.doctor import ProbeSetup
    from launcher.reproduce.target import HydraAgain, PlainAgain
    from launcher.setup.hydra import HydraSetup
    from launcher.setup.plain_app import PlainAppSetup

    known = (RunSetup, PlainAppSetup, HydraSetup, PlainAgain, HydraAgain, ProbeSetup)
    return {cls.kind: cls for cls in known}


@dataclasses.dataclass(frozen=True)
class _Named:
    """All that composing from overrides needs of an application."""

    name: str


def _composer(record: RunRecord, reader: JournalReader) -> Callable[[Sequence[str], int, str], Any]:
    """Composes the jobs of a Hydra app that were not composed yet, from the files as they are now."""

    @functools.lru_cache(maxsize=1)
    def made() -> tuple[Any, Any]:
        from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
        from hydra._internal.hydra import Hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.plugins import Plugins

        from launcher.config.hydra import make_loader

        if record.main_module:
            # The application registers its structured configs, and Hydra's version base, when it is imported.
            importlib.import_module(record.main_module)
        # Config sources are plugins.
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


def _callbacks(record: RunRecord, reader: JournalReader, loads: Callable[[bytes], Any]) -> Callbacks:
    """The callbacks with the state that they had when it was last put down.

    Raises:
        CallbackError: one can be neither loaded nor built.
    """
    data = reader.blob("callbacks")
    if not data:
        return Callbacks([])
    stored = loads(data)
    if not isinstance(stored, list):
        raise CallbackError(
            "the callbacks in the run's journal are no list of callbacks: it is damaged, or not one of ours"
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
                        f"{type(error).__name__}: {error}; make its module importable (PYTHONPATH) and take the run up again"
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


class ResumedSession(Session):
    """A session of a run that another one began. See `Session.resume`."""

    def __init__(
        self,
        setup: RunSetup,
        record: RunRecord,
        *,
        configs: Iterable[Any] | None = None,
        observers: Sequence[Observer] = (),
        install_signals: bool = True,
        owns_process: bool = False,
        in_own_thread: bool = False,
        retry: Callable[[events.JobReturned], bool] | None = None,
        live: Live | None = None,
    ) -> None:
        super().__init__(
            setup,
            config=setup.root_config,
            config_name=record.config_name,
            observers=observers,
            install_signals=install_signals,
            owns_process=owns_process,
            live=live,
            in_own_thread=in_own_thread,
        )
        self.record = record
        self._configs = configs
        self._retry = retry
        self._rest: Iterator[tuple[Any, Sequence[str]]] = iter(())
        #: Jobs that had returned before, with the places of the callbacks whose `on_job_return` is owed.
        self._owed: list[tuple[int, list[int]]] = []
        #: The run had come to its end before: there is nothing to do but to read it.
        self.is_over = False

    # -- opening -------------------------------------------------------------------------------------------------

    def open_run(self) -> None:
        """Take the run up from its journal, and connect to the hosts."""
        self.build()
        try:
            self._take_up()
        except BaseException:
            try:
                self.engine.close()
                self.engine.close_journal()
            finally:
                self.restore_signals()
            raise

    def _take_up(self) -> None:
        reader = self.engine.reader
        # Before anybody acts on it: what is wrong with it must not be met by the thread that decides.
        reader.check()
        # Read once more: only now is it sure that nobody else writes.
        record = self.record = run_record.read(reader)
        self.prepared = PreparedRun(
            self.setup, reader.blob("shared") or b"", told=record.zygotes, by_value=record.by_value
        )
        last = reader.last_num()
        self.continue_at(self.setup.first_num if last is None else last + 1)
        self.made_returns.restore(reader.meta())
        ended = reader.last_event("run_ended", "job_retried", "run_resumed", "run_started")
        again = self._chosen()
        if isinstance(ended, events.RunEnded) and not again:
            self.is_over = True
            return
        if not self.record.zygotes:
            self._bury()
        unfinished = self.engine.restore()
        self.unfinished.update({num: self.new_job(num) for num in unfinished})
        self._rest = self._sources()
        self._owed = self._owed_hooks()
        self.index_run(self.record.started, self._secret())
        if not self.in_own_thread:
            self.handle_signals()
        self.engine.start()
        for returned in again:
            self.unfinished[returned.num] = self.new_job(returned.num)
            self.engine.retry(returned)
        for note in self.callbacks.notes:
            self.hooks.tell([events.Note(time.time(), note)])

    def _secret(self) -> str:
        """What says that the run is ours; a run that an earlier version began gets it now, and may be moved from then on."""
        secret = self.engine.reader.meta().get(ownership.KEY, "")
        if not secret:
            secret = ownership.make_secret()
            self.engine.journal.put_meta(**{ownership.KEY: secret})
            self.engine.journal.commit()
        return secret

    def _owed_hooks(self) -> list[tuple[int, list[int]]]:
        """What an earlier controller did not come to, or was interrupted in."""
        places = [place for place, entry in enumerate(self.callbacks) if entry.hook("on_job_return") is not None]
        names = [entry.name for entry in self.callbacks]
        owed = []
        for num, fired in self.engine.reader.unhooked_returns(len(places)) if places else ():
            left = [place for place in places if names[place] not in fired]
            if left:
                owed.append((num, left))
        return owed

    def _fire_owed(self) -> None:
        """Fire `on_job_return` of jobs that had returned before, of those callbacks for which it had not come to its end."""
        while self._owed:
            self.leave_if_must()
            num, places = self._owed.pop(0)
            self.take(load_returned(self.engine.reader, num), places)

    def _chosen(self) -> list[events.JobReturned]:
        """The jobs that are to be run once more."""
        if self._retry is None:
            return []
        reader = self.engine.reader
        returned = (reader.returned(num) for num in range(self.setup.first_num, self.next_num))
        return [one for one in returned if one is not None and self._retry(one)]

    def _bury(self) -> None:
        """Close a run that died before anything was sent: its end hook is owed all the same.

        Raises:
            RunError: always.
        """
        self.fire_end()
        ended = self.ended_event()
        self.engine.journal.append([ended])
        raise RunError(
            f"run {self.run_id} died before anything was sent to a host, so there is nothing to take up; "
            "its end hook has fired; start it again"
        )

    def _sources(self) -> Iterator[tuple[Any, Sequence[str]]]:
        """The jobs that were never submitted."""
        reader, first = self.engine.reader, self.setup.first_num
        if self._configs is not None:
            return ((config, ()) for config in itertools.islice(self._configs, self.next_num - first, None))
        if reader.meta().get("open"):
            self.hooks.warn(
                "configs",
                f"the configs of this run came from an iterator that was not used up; those from job {self.next_num} on "
                "are not known, and not run (give all configs once more: Session.resume(run, configs=...))",
            )
        return run_record.read_planned(reader, self.next_num, self.setup.pickler.loads)

    # -- the end -------------------------------------------------------------------------------------------------

    def collect(self, *, detach: bool = False) -> None:
        """Wait for all jobs, firing hooks as results arrive.

        Args:
            detach: leave again as soon as the hosts have everything.

        Raises:
            RunInterrupted: by Ctrl-C or SIGTERM, when everything has been collected.
            RunDetached: by SIGHUP.
        """
        if self.is_over:
            return
        with self.interrupts.ours():
            self._fire_owed()
        rest, self._rest = self._rest, iter(())
        self.drive_from(rest, None, detach=detach, is_planned=self._configs is None)

    def cancel_run(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything; leaving the session collects it, and fires the end hook."""
        if self.is_over:
            return
        self._rest = iter(())
        self.interrupts.add(why, kill=kill)

    def cancel_job(self, num: int, timeout: float) -> bool:
        """Cancel one job, wait for its end, and leave the rest to the hosts as it was; True if it has returned.

        Args:
            timeout: seconds; a job whose host could not be reached by then is cancelled when the run is next taken up.
        """
        job = self.unfinished.get(num)
        if self.is_over or job is None:
            return True
        self.engine.cancel(num)
        deadline = time.monotonic() + timeout
        while not job.done() and time.monotonic() < deadline:
            self.take_next(0.1)
        if not self.engine.is_idle or next(self._rest, None) is not None:
            self.detach("only to cancel a job")
            if not self.is_detached:
                self.depart("only to cancel a job")
        return job.done()

    def drain(self) -> None:
        """Take everything that is still to come, and what an earlier controller did not come to."""
        if self.is_over:
            return
        if not self.is_interrupted:
            self.collect()
        self._fire_owed()
        super().drain()

    def end(self) -> None:
        """End the run, if it was not over."""
        if self.is_over:
            self.engine.close_journal()
            return
        # Agents that have given all that they had are to end, too.
        deadline = time.monotonic() + _PATIENCE
        hosts = self.engine.scheduler.hosts.values()
        while (
            any(host.phase is HostPhase.UNKNOWN for host in hosts)
            and time.monotonic() < deadline
            and not self.is_interrupted
            and self.engine.crash is None
        ):
            self.engine.wait(0.1)
        super().end()

    def fire_end(self) -> None:
        """Fire the end hook, unless an earlier controller did and nothing has run since."""
        if self.record.end_hooks.get(self.hooks.end_hook) == "done" and not self.engine.submitted:
            return
        super().fire_end()
