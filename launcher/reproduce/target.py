"""Finds the job to run again, and everything that it needs, by its run and number, its folder, or a pickle of it.

Rule: a run's job comes from the controller's own journal (`launcher.runs.ownership`), with the same bytes that its host
got. What a host wrote is only data: no module that its YAML names is imported, no object is built, no place is written
to, and it runs only with the code that `--app` names. A pickle is opened only if its own path was given.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import events
from launcher.code.task import as_main
from launcher.config.job_config import raw_texts
from launcher.errors import UsageError
from launcher.inventory import parse_host
from launcher.options import LaunchConf
from launcher.reproduce import received_config
from launcher.reproduce.compare import Outcome, outcome_of_job_return, recorded_outcome
from launcher.results.job_returns import environment_of
from launcher.runs import index, ownership
from launcher.runs.journal import FOLDER, JournalReader
from launcher.serialization import pickler as pickling
from launcher.setup.again import HydraAgain, PlainAgain
from launcher.setup.callbacks import build_callbacks
from launcher.setup.folders import default_folder
from launcher.setup.hydra import HydraSetup, task_reference
from launcher.setup.run_setup import RunSetup
from launcher.util.terminal_text import clean, clean_line
from remote_agent.callbacks.base import CONTROLLER_HOOKS
from remote_agent.callbacks.composite import Callbacks
from remote_agent.protocol.zygote_spec import Command

if TYPE_CHECKING:
    from launcher.code.application import Application
    from launcher.environments.lock import Lock
    from launcher.runs.record import RunRecord

__all__ = ["Target", "decoder_of", "find_target"]

_YAML = ("config.yaml", "hydra.yaml", "overrides.yaml")
_PICKLES = (".pickle", ".pkl")


# -- what is to be reproduced ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Target:
    """A job that can be run again.

    Attributes:
        name: what it is called.
        setup: its run's setup.
        before: how it ended; None if unknown.
        env: the job's variables whose values are known here.
        notes: what the user should know.
        callbacks: of a job without a record: `_target_` nodes. Callbacks are built from them only if hooks are asked
        for.
        lock: the packages of the environment on its host; None for none.
        environment: the key of that environment, if it is known.
    """

    name: str
    setup: PlainAgain | HydraAgain
    before: Outcome | None
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    lock: Lock | None = None
    environment: str = ""

    def built_callbacks(self) -> Callbacks:
        """Build the callbacks, because their hooks are asked for."""
        if not self.callbacks:
            return self.setup.callbacks
        with as_main(self.setup.main_module or ""):
            return build_callbacks(self.callbacks, (), LaunchConf())


def find_target(
    text: str, *, app: str | None = None, env: Mapping[str, str] | None = None, results: str = "safe"
) -> Target:
    """Find the job that `RUN#NUM`, a job's output directory, its `config.pickle` or its `job_return.pickle` names.

    Args:
        app: the application, if no record says which it is; as for `launcher run`.
        env: values of the job's variables. Others are taken from the environment.
        results: the policy for decoding a recorded value to compare it.

    Raises:
        UsageError: there is no such job, or the application cannot be found.
        RunError: there is no such run, or its record cannot be read.
    """
    path = Path(text)
    if path.name in _YAML and path.is_file():
        path = path.parent
    if path.is_dir():
        # The path may be written in any way, such as by a link or with `..`.
        folder = path.resolve()
        recorded = _recorded_at(folder, env, results)
        if recorded is None and _has_yaml(folder):
            # The user may also name the folder with Hydra's files.
            recorded = _recorded_at(folder.parent, env, results)
        return recorded if recorded is not None else _from_yaml(folder, app)
    if path.is_file():
        if path.suffix not in _PICKLES:
            raise UsageError(
                f"{clean_line(path)} is not called {' or '.join(_PICKLES)}: a pickle can run any code, so a file is "
                "opened as one only if its name says so"
            )
        return _from_pickle(path.resolve(), app, env, results)
    reference = index.parse(text)
    num = _only_job(reference.entry) if reference.num is None else reference.num
    if num is None:
        raise UsageError(f"{text!r} is a run; which of its jobs? Say {text}#0, or name a job's output directory")
    return _recorded(reference.entry, num, env, results)


def _only_job(entry: index.Entry) -> int | None:
    """Return the job of a run that has only one."""
    with JournalReader(entry.folder / FOLDER) as reader:
        return reader.last_num() if reader.count_jobs() == 1 else None


def _recorded(entry: index.Entry, num: int, env: Mapping[str, str] | None, results: str) -> Target:
    from launcher.runs import record as run_record
    from launcher.setup.from_journal import load_setup

    setup, record = load_setup(entry.folder, env=env, needs_env=False)
    with JournalReader(entry.folder / FOLDER) as reader:
        job = reader.job(num)
        if job is None:
            raise UsageError(f"run {record.run} has no job {num}")
        overrides, _, payload, _ = job
        if not payload:
            raise UsageError(f"job {num} of run {record.run} was never sent, because its config could not be made")
        before = recorded_outcome(reader, num, decoder_of(setup, results))
        host, environment = _where(reader, num)
        shared = reader.blob("shared") or b""
    again = _again_of(setup, record, payload, overrides, shared)
    values = {**os.environ, **(env or {})}
    names = run_record.variables(record)
    missing = [name for name in names if name not in values]
    notes = [f"variables that the job had are not set here: {', '.join(missing)}"] if missing else []
    known = {name: values[name] for name in names if name in values}
    return Target(
        f"{record.run}#{num}", again, before, known, notes, lock=setup.locks.get(host), environment=environment
    )


def _where(reader: JournalReader, num: int) -> tuple[str, str]:
    """The host of a job that has returned, and the key of its environment there; empty for none."""
    event = reader.returned(num)
    if event is None:
        return "", ""
    stored = reader.result(num, event.attempt)
    return event.host, environment_of(stored.envelope.code) if stored is not None else ""


def _again_of(
    setup: RunSetup, record: RunRecord, payload: bytes, overrides: tuple[str, ...], shared: bytes
) -> PlainAgain | HydraAgain:
    values = {field.name: getattr(setup, field.name) for field in dataclasses.fields(RunSetup)}
    values.update(
        mode="RUN",
        run_id=index.new_run_id(),
        first_num=0,
        fired_elsewhere=frozenset(CONTROLLER_HOOKS),
        payload=payload,
        overrides=overrides,
        shared=shared,
        by_value=record.by_value,
        started_in=record.cwd,
        started_as=_started_as(record),
        asked_as=_asked_as(record) or setup.codec,
        earlier=setup.folder / FOLDER,
        preferred=_preferred(record),
    )
    return HydraAgain(**values) if isinstance(setup, HydraSetup) else PlainAgain(**values)


def _started_as(record: RunRecord) -> Command | None:
    for told in record.zygotes.values():
        return told.command
    return None


def _preferred(record: RunRecord) -> tuple[int, ...]:
    for told in record.zygotes.values():
        return tuple(told.controller.python)
    return ()


def _asked_as(record: RunRecord) -> str:
    """Return how its hosts were asked for values. Older versions always asked for pickles."""
    for told in record.zygotes.values():
        return told.values or "cloudpickle"
    return ""


def _recorded_at(folder: Path, env: Mapping[str, str] | None, results: str) -> Target | None:
    """Return the recorded job whose output directory this is.

    `folder` is resolved. Only what we wrote counts as a record.
    """
    for parent in (folder, *folder.parents):
        if not _holds_journal(parent) or not ownership.is_ours(parent):
            continue
        num = _num_of(parent, folder)
        if num is not None:
            return _recorded(index.find(parent), num, env, results)
    return None


def _holds_journal(folder: Path) -> bool:
    return (folder / FOLDER / "journal.sqlite").is_file()


def _num_of(run_folder: Path, folder: Path) -> int | None:
    """Return the number of the job whose output directory this is, even if the run has been moved since."""
    with JournalReader(run_folder / FOLDER) as reader:
        began = reader.last_event("run_started")
        began_in = Path(began.folder) if isinstance(began, events.RunStarted) else run_folder
        last = reader.last_num()
        for num in range(0 if last is None else last + 1):
            job = reader.job_without_payload(num)
            if job is None:
                continue
            path = Path(job[1])
            moved = run_folder / path.relative_to(began_in) if path.is_relative_to(began_in) else path
            if folder in (moved.resolve(), path.resolve()):
                return num
    return None


def decoder_of(setup: RunSetup, results: str) -> Any:
    """Return the decoder of this run's values, with its own policy."""
    return dataclasses.replace(setup.decoder, policy=results)


# -- from files ------------------------------------------------------------------------------------------------------


def _from_pickle(path: Path, app: str | None, env: Mapping[str, str] | None, results: str) -> Target:
    """Load a pickle. That is allowed because the user gave its path."""
    from omegaconf import OmegaConf

    recorded = _recorded_at(path.parent, env, results) or _recorded_at(path.parent.parent, env, results)
    if recorded is None:
        _make_importable(app)
    try:
        content = pickling.loads(path.read_bytes(), main_module=recorded.setup.main_module if recorded else None)
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read: {type(error).__name__}: {error}; if it lacks a module, start this in the "
            "application's folder, or name the application with --app"
        ) from error
    config, before = _config_of(content, path)
    if recorded is None:
        nodes: Any = OmegaConf.to_container(config.hydra.callbacks, resolve=True)
        return _bare(str(path), config, _application(app, config), before, nodes)
    content = {
        **_content(config),
        "overrides": list(recorded.setup.overrides),
        "task_name": recorded.setup.task_name,
    }
    setup = dataclasses.replace(recorded.setup, payload=recorded.setup.pickler.dumps_here(content))
    return dataclasses.replace(recorded, name=str(path), setup=setup, before=before or recorded.before)


def _config_of(content: Any, path: Path) -> tuple[Any, Outcome | None]:
    """Return the config with its `hydra` node, and the outcome if the pickle has one."""
    import copy

    from omegaconf import OmegaConf

    from remote_agent.config.nodes import attach

    if OmegaConf.is_dict(content) and "hydra" in content:
        return content, None
    if hasattr(content, "hydra_cfg") and hasattr(content, "status"):
        if content.cfg is None or content.hydra_cfg is None:
            raise UsageError(f"{path}: this JobReturn holds no config, so there is nothing to run again")
        config = copy.deepcopy(content.cfg)
        OmegaConf.set_readonly(config, None)
        attach(config, "hydra", copy.deepcopy(content.hydra_cfg.hydra))
        return config, outcome_of_job_return(content)
    raise UsageError(f"{path} is neither a pickled config of a job (config.pickle) nor a JobReturn (job_return.pickle)")


def _from_yaml(folder: Path, app: str | None) -> Target:
    """Make a target from the YAML config in an output directory and the application that the user names.

    A host may have written it, so nothing that it names is imported or built here. Only plain words of its `hydra` node
    are kept.

    Raises:
        UsageError: no application is named, there is no such config, or it cannot be read.
    """
    files = folder / ".hydra" if (folder / ".hydra").is_dir() else folder
    if not _has_yaml(files):
        raise UsageError(
            f"{clean_line(folder)} is not the output directory of a job: it has no .hydra/config.yaml and "
            ".hydra/hydra.yaml"
        )
    if app is None:
        raise UsageError(
            f"{clean_line(folder)}: no run of yours has a record of this job. A host may have written the files here, "
            "so the code that they name is not trusted: name the application with --app. It runs with the config that "
            f"is stored here{_adoptable(folder)}"
        )
    config = received_config.read(files / "config.yaml")
    told = received_config.read(files / "hydra.yaml")
    found = _named_application(app)
    nodes = received_config.callbacks_of(told)
    config.pop("hydra", None)
    config.hydra = received_config.hydra_node(told, name=found.name, cwd=os.getcwd())
    target = _bare(str(folder), config, found, None, nodes)
    target.notes.append(f"the config comes from {clean(files)}; the application uses what it names")
    return target


def _adoptable(folder: Path) -> str:
    """Return a hint about a run in a folder above this one that is not known to be ours."""
    for parent in (folder, *folder.parents):
        if _holds_journal(parent) and not ownership.is_ours(parent):
            return (
                f". The run in {clean(parent)} may have a record of it, but that run is not known to be yours. "
                f"Only if you trust whoever made that folder: launcher runs --adopt {clean(parent)}"
            )
    return ""


def _has_yaml(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "hydra.yaml").is_file()


def _bare(name: str, config: Any, found: Application, before: Outcome | None, callbacks: dict[str, Any]) -> Target:
    """Make a target for a job that has a config but no record."""
    from hydra.core.utils import JobRuntime

    is_hydra = _is_whole(config)
    task_name = str(config.hydra.job.name)
    JobRuntime.instance().set("name", task_name)
    cls = HydraAgain if is_hydra else PlainAgain
    setup = cls(
        mode="RUN",
        run_id=index.new_run_id(),
        folder=default_folder("RUN").absolute(),
        hosts=(parse_host("local"),),
        options=LaunchConf(),
        callbacks=Callbacks([]),
        task=task_reference(found.task, found.module_name) if found.is_hydra else found.reference,
        task_name=task_name,
        configs=(),
        root_config=config,
        root=found.root if "." in found.module_name else found.file,
        main_module=found.module_name,
        fired_elsewhere=frozenset(CONTROLLER_HOOKS),
        overrides=tuple(raw_texts(config.hydra.overrides.task)),
        started_in=os.getcwd(),
    )
    content = {**_content(config), "overrides": list(setup.overrides), "task_name": task_name}
    setup = setup.with_job(content)
    notes = [] if before else ["there is no record of how it ended (give a job_return.pickle or RUN#NUM to compare)"]
    return Target(name, setup, before, notes=notes, callbacks=callbacks)


def _is_whole(config: Any) -> bool:
    from omegaconf import OmegaConf

    return getattr(OmegaConf.get_type(config, "hydra"), "__name__", "") == "HydraConf"


def _content(config: Any) -> dict[str, Any]:
    """Make a job's payload from its config. For a plain function the `hydra` node is separate."""
    from omegaconf import OmegaConf

    if _is_whole(config):
        return {"config": config, "hydra": None}
    plain = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    return {"config": plain, "hydra": OmegaConf.to_container(config.hydra)}


def _make_importable(app: str | None) -> None:
    if app is not None:
        _named_application(app)
    elif os.getcwd() not in sys.path and not _is_output(Path.cwd()):
        sys.path.insert(0, os.getcwd())


def _is_output(folder: Path) -> bool:
    """Whether this folder, or one above it, has a job's files. Nothing may be imported from what hosts wrote."""
    marks = (".hydra/hydra.yaml", f"{FOLDER}/stdout", f"{FOLDER}/stderr")
    return any((one / mark).is_file() for one in (folder, *folder.parents) for mark in marks)


def _named_application(app: str) -> Application:
    """Load the application that the user names, but never a file of that name among the files of a job.

    Raises:
        UsageError: it would be imported from an output directory, or for a reason of `load_application`.
    """
    from launcher.code.application import load_application

    name = app.partition(":")[0]
    folder = Path(name).resolve().parent if name.endswith(".py") or os.sep in name else Path.cwd()
    if not os.path.isabs(name) and _is_output(folder):
        raise UsageError(
            f"--app {app}: it would be imported from {clean_line(folder)}, an output directory, where a host may have written it; "
            "go to the application's own folder, or give the whole path of the file that you mean"
        )
    return load_application(app)


def _application(app: str | None, config: Any) -> Application:
    """Return the application of a config that came from a pickle that the user named."""
    if app is not None:
        return _named_application(app)
    name = str(config.hydra.job.name)
    folders = [folder for folder in (Path(str(config.hydra.runtime.cwd)), Path.cwd()) if not _is_output(folder)]
    for folder in folders:
        if (folder / f"{name}.py").is_file():
            return _named_application(str(folder / f"{name}.py"))
    looked = (
        " and ".join(str(folder / f"{name}.py") for folder in dict.fromkeys(folders))
        or f"{name}.py outside of an output directory"
    )
    raise UsageError(f"which application was it? There is no {clean(looked)}: name it with --app")
