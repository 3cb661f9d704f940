"""A job that is run again from the files of its output directory, without a record of its run.

Rule: what a host wrote is only data: no module that its YAML names is imported, no object is built, no place is written
to, and it runs only with the code that `--app` names. A pickle is opened only if its own path was given.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from launcher.code.application.application import Application
from launcher.config.job_config import raw_texts
from launcher.errors import UsageError
from launcher.hosts.inventory import parse_host
from launcher.options import LaunchConf
from launcher.reproduce import received_config
from launcher.reproduce.compare import Outcome, outcome_of_job_return
from launcher.reproduce.from_journal import holds_journal
from launcher.reproduce.target import Target
from launcher.runs import index, ownership
from launcher.runs.journal import FOLDER
from launcher.serialization import pickler as pickling
from launcher.setup.folders import default_folder
from launcher.setup.kinds.again import HydraAgain, PlainAgain
from launcher.setup.kinds.hydra import task_reference
from launcher.util.text.terminal_text import clean, clean_line
from remote_agent.callbacks.base import CONTROLLER_HOOKS
from remote_agent.callbacks.composite import Callbacks

__all__ = ["from_pickle", "from_yaml", "has_yaml"]


def from_pickle(path: Path, app: str | None, recorded: Target | None) -> Target:
    """Load a pickle. That is allowed because the user gave its path.

    Args:
        recorded: what our record says of the job; it runs with the config of the pickle.

    Raises:
        UsageError: it cannot be read, or the application cannot be found.
    """
    from omegaconf import OmegaConf

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


def from_yaml(folder: Path, app: str | None) -> Target:
    """Make a target from the YAML config in an output directory and the application that the user names.

    A host may have written it, so nothing that it names is imported or built here. Only plain words of its `hydra` node
    are kept.

    Raises:
        UsageError: no application is named, there is no such config, or it cannot be read.
    """
    files = folder / ".hydra" if (folder / ".hydra").is_dir() else folder
    if not has_yaml(files):
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
        if holds_journal(parent) and not ownership.is_ours(parent):
            return (
                f". The run in {clean(parent)} may have a record of it, but that run is not known to be yours. "
                f"Only if you trust whoever made that folder: launcher runs --adopt {clean(parent)}"
            )
    return ""


def has_yaml(folder: Path) -> bool:
    """Whether a job's YAML lies in this folder."""
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
    from launcher.code.application.application import load_application

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
