"""The context of a job: its config with and without the `hydra` node, its names and folders, its logging.

Rule: the application and the callbacks get separate configs, so that an edit by `on_job_start` does not reach the
application (as in Hydra's `run_job`, hydra/core/utils.py 1.3). `deepcopy` is not used, because it costs 27 µs per node.
"""
# ruff: noqa: SLF001  (omegaconf keeps flags and content in private attributes)

import logging
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from remote_agent.config.nodes import attach, clone, config_of, is_config, literal, make_config, plain_of, snapshot
from remote_agent.config.yaml import config_yaml, plain_yaml
from remote_agent.hydra import compat

__all__ = [
    "LOG_FORMAT",
    "HydraContext",
    "JobContext",
    "PlainContext",
    "default_handlers",
    "drop_default_handlers",
    "make_context",
]

#: The format of Hydra's default job logging (hydra/job_logging/default.yaml).
LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
_formatter = logging.Formatter(LOG_FORMAT)


class JobContext:
    """The part of the context that every kind of job has."""

    output_dir: str
    output_subdir: Optional[str]
    task_name: str
    overrides: List[str]
    chdir: bool
    env_set: Dict[str, str]
    #: The application's config, the callbacks' config (with the `hydra` node), and the JobReturn's `hydra_cfg`.
    task_cfg: Any
    config: Any
    hydra_cfg: Any
    #: The job's own task; None for the task of the run.
    task: Any = None
    #: Loads (args, kwargs) for the task; None if it is called with the config.
    call: Optional[Callable[[], Any]] = None
    #: A `snapshot` of `task_cfg`, which shows whether the application has edited it.
    before: Any
    #: (output directory, working folder) on the controller, if a config has them.
    controller_folders: Optional[Tuple[Any, Any]] = None

    def yaml_files(self) -> Dict[str, str]:
        """Return the files below output_subdir: file name -> text."""
        raise NotImplementedError

    def configure_logging(self) -> None:
        """Set up logging for the job."""
        raise NotImplementedError

    def logging_conf(self) -> Any:
        """Return the logging configuration as plain data, if the config has one."""
        return None

    def has_edited_cfg(self) -> bool:
        """Whether the application or an end hook may have edited `task_cfg`."""
        return self.before is None or snapshot(self.task_cfg) != self.before


def make_context(payload: bytes, loads: Callable[[bytes], Any], output_dir: str, cwd: str) -> JobContext:
    """Make the context of a job from its payload (see `remote_agent.job_process.run`)."""
    content = loads(payload)
    context: JobContext
    if content.get("hydra") is None:
        context = HydraContext(content, output_dir, cwd)
    else:
        context = PlainContext(content, lambda: loads(payload)["config"], output_dir, cwd)
    if content.get("task") is not None:
        context.task = compat.resolve_task(content["task"])
    call = content.get("call")
    if call is not None:
        context.call = lambda: loads(call)
    return context


class PlainContext(JobContext):
    """A job with a plain config: a dict, dataclass or DictConfig, which becomes a DictConfig, or any other object,
    unchanged.

    A `hydra` key in such a config is not for the application. Its content goes into the `hydra` node, except
    `hydra.runtime`.
    """

    def __init__(self, content: Dict[str, Any], decode_again: Callable[[], Any], output_dir: str, cwd: str) -> None:
        node = content["hydra"]
        self.task_cfg = _as_config(content["config"])
        self.before = snapshot(self.task_cfg)
        full = _as_config(decode_again())
        self.config = full if type(full).__name__ == "DictConfig" and _is_open(full) else make_config({})
        own = self.config.__dict__["_content"].pop("hydra", None)
        if own is not None:
            del self.task_cfg.__dict__["_content"]["hydra"]
            self.before = snapshot(self.task_cfg)
            _update(node, plain_of(own))
        node["runtime"].update(output_dir=literal(output_dir), cwd=literal(cwd))
        job = node["job"]
        self._node = node
        self.output_dir = output_dir
        self.output_subdir = node.get("output_subdir")
        self.overrides = list(content.get("overrides") or [])
        self.task_name = content.get("task_name") or job["name"]
        self.chdir = bool(job.get("chdir"))
        self.env_set = {str(key): str(value) for key, value in (job.get("env_set") or {}).items()}
        self.config._metadata.flags.pop("readonly", None)
        attach(self.config, "hydra", make_config(node))
        self.hydra_cfg = config_of("hydra", make_config(node))
        self.hydra_cfg._metadata.flags["readonly"] = True

    def yaml_files(self) -> Dict[str, str]:
        """config.yaml, hydra.yaml, overrides.yaml."""
        hydra = plain_yaml({"hydra": self._node})
        return {
            "config.yaml": config_yaml(self.task_cfg),
            "hydra.yaml": config_yaml(self.hydra_cfg) if hydra is None else hydra,
            "overrides.yaml": _list_yaml(self.overrides),
        }

    def configure_logging(self) -> None:
        """Set up Hydra's default job logging: root at INFO, to stdout and `<task_name>.log` in the output directory."""
        root = logging.root
        root.handlers[:] = default_handlers(os.path.join(self.output_dir, "{}.log".format(self.task_name)))
        verbose = self._node.get("verbose")
        root.setLevel(logging.DEBUG if verbose is True else logging.INFO)
        if verbose and verbose is not True:
            for name in [verbose] if isinstance(verbose, str) else verbose:
                logging.getLogger(name).setLevel(logging.DEBUG)


_made: List[Any] = []


def default_handlers(path: str) -> List[Any]:
    """Make the handlers of Hydra's default job logging: to stdout and to a file, which exists from now on.

    They are made once, in the zygote. A job's process gives them its own stream and file. A worker makes them for each job.
    """
    if not _made:
        _made[:] = [logging.StreamHandler(sys.stdout), logging.FileHandler(os.devnull, encoding="utf-8", delay=True)]
        for handler in _made:
            handler.setFormatter(_formatter)
    to_stdout, to_file = _made
    to_stdout.stream = sys.stdout
    # The handler opens it only when something is logged. An empty file shows that nothing was.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666))
    to_file.baseFilename = os.path.abspath(path)
    return list(_made)


def drop_default_handlers() -> None:
    """Close these handlers. The next job gets new ones, whatever the last one has set."""
    for handler in _made:
        handler.close()
    _made.clear()


def _is_open(config: Any) -> bool:
    """Whether the node is a mapping, and not None, missing or an interpolation."""
    return isinstance(config.__dict__["_content"], dict)


def _update(node: Dict[str, Any], more: Any) -> None:
    """Copy a plain config's settings for Hydra into the `hydra` node."""
    if not isinstance(more, dict):
        return
    for key, value in more.items():
        known = node.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            known.update(value)
        elif value != "???":
            node[key] = value


def _as_config(value: Any) -> Any:
    """Return the config for the application: a DictConfig or ListConfig, if omegaconf can make one."""
    if is_config(value):
        return value
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    try:
        return make_config(value)
    except Exception:  # noqa: BLE001 - omegaconf may raise anything
        # It is not a mapping, a list or a dataclass that omegaconf can handle. The application gets it unchanged.
        return value


def _list_yaml(items: List[str]) -> str:
    text = plain_yaml(items)
    return config_yaml(make_config(items)) if text is None else text


class HydraContext(JobContext):
    """A job of a Hydra app.

    It does the same with its config as `hydra.core.utils.run_job` (1.3.8), in the same order.
    """

    def __init__(self, content: Dict[str, Any], output_dir: str, cwd: str) -> None:
        from omegaconf import OmegaConf, open_dict, read_write

        compat.set_job_name(content["task_name"])
        self.task_name = content["task_name"]
        self.output_dir = output_dir
        self.config = config = content["config"]
        runtime = config.hydra.runtime
        if not OmegaConf.is_missing(runtime, "output_dir"):
            self.controller_folders = (runtime.output_dir, runtime.cwd)
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = literal(output_dir)
            config.hydra.runtime.cwd = cwd
        hydra = config.hydra
        # `HydraConfig` gets one copy of the node, the JobReturn another one.
        compat.set_hydra_config(config, clone(hydra))
        self.hydra_cfg = config_of("hydra", clone(hydra))
        self.task_cfg = clone(config, without="hydra")
        self.before = snapshot(self.task_cfg)
        self.overrides = list(OmegaConf.to_container(hydra.overrides.task))  # type: ignore[arg-type]
        self.output_subdir = hydra.output_subdir
        chdir = hydra.job.chdir
        self.chdir = compat.chdir_by_default() if chdir is None else bool(chdir)
        self.env_set = {str(key): str(value) for key, value in hydra.job.env_set.items()}

    def yaml_files(self) -> Dict[str, str]:
        """config.yaml, hydra.yaml, overrides.yaml."""
        return {
            "config.yaml": config_yaml(self.task_cfg),
            "hydra.yaml": config_yaml(self.hydra_cfg),
            "overrides.yaml": _list_yaml(self.overrides),
        }

    def logging_conf(self) -> Any:
        """Return `hydra.job_logging`, resolved."""
        from omegaconf import OmegaConf

        node = self.config.hydra.job_logging
        return None if node is None else OmegaConf.to_container(node, resolve=True)

    def configure_logging(self) -> None:
        """Apply `hydra.job_logging` and `hydra.verbose`, with Hydra's own functions."""
        from hydra.core.utils import configure_log

        configure_log(self.config.hydra.job_logging, self.config.hydra.verbose)
