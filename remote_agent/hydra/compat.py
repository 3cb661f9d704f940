"""Gives a Hydra app's job what Hydra would give it: its config, its JobReturn, its callbacks. Other jobs get a minimal
`hydra` node.

Rule: a plain job never imports Hydra. Only `as_hydra` converts between Hydra's JobReturn and JobStatus and ours.
`remote_agent.hydra.state` handles Hydra's process-wide state.
"""
# ruff: noqa: SLF001  (Hydra and omegaconf keep their state in private attributes)

import importlib
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

from remote_agent.config.nodes import config_of
from remote_agent.job import JobReturn

__all__ = [
    "as_hydra",
    "instantiate",
    "is_hydra_loaded",
    "minimal_hydra_node",
    "resolve_task",
    "set_hydra_config",
    "undecorated",
]


def minimal_hydra_node(
    *,
    name: str = "app",
    num: Optional[int] = None,
    job_id: str = "",
    cwd: str = "",
    output_dir: str = "???",
    output_subdir: Optional[str] = ".hydra",
    run_dir: str = "",
    sweep_dir: str = "",
    sweep_subdir: str = "",
    mode: str = "RUN",
    task_overrides: Optional[List[str]] = None,
    callbacks: Optional[Dict[str, Any]] = None,
    chdir: Optional[bool] = False,
    env_set: Optional[Dict[str, str]] = None,
    choices: Optional[Dict[str, Any]] = None,
    verbose: Any = False,
    version: str = "",
) -> Dict[str, Any]:
    """Return the `hydra` node of a plain config as plain data, so that a callback written for Hydra finds what it
    needs.

    The keys and their meaning are Hydra's (https://hydra.cc/docs/configure_hydra/intro/):

    * `runtime.cwd`, `runtime.output_dir` (absolute; `???` until the host knows it), `runtime.version`, `runtime.choices`
    * `output_subdir`: where `config.yaml`, `hydra.yaml`, `overrides.yaml` and the pickles go; None for nowhere
    * `job.name` (the task name), `job.num`, `job.id`, `job.chdir`, `job.env_set`, `job.override_dirname`
    * `run.dir`, `sweep.dir`, `sweep.subdir`, `mode` (RUN or MULTIRUN), `overrides.task`, `overrides.hydra`
    * `callbacks`: name -> `_target_` node; `verbose`: as `hydra.verbose`
    """
    overrides = list(task_overrides or [])
    return {
        "run": {"dir": run_dir},
        "sweep": {"dir": sweep_dir, "subdir": sweep_subdir},
        "callbacks": dict(callbacks or {}),
        "output_subdir": output_subdir,
        "overrides": {"hydra": [], "task": overrides},
        "job": {
            "name": name,
            "chdir": chdir,
            "override_dirname": ",".join(sorted(overrides)),
            "id": job_id,
            "num": num,
            "env_set": dict(env_set or {}),
        },
        "runtime": {"version": version, "cwd": cwd, "output_dir": output_dir, "choices": dict(choices or {})},
        "mode": mode,
        "verbose": verbose,
    }


# -- JobReturn, Hydra's and ours -------------------------------------------------------------------------------------


def is_hydra_loaded() -> bool:
    """Whether Hydra is loaded in this process, so that something may compare with its JobStatus."""
    return "hydra.core.utils" in sys.modules


def as_hydra(job_return: JobReturn) -> JobReturn:
    """Return the JobReturn as an instance of Hydra's own JobReturn, too, with Hydra's own JobStatus.

    Hydra's callbacks compare the status with `==`, and its test suites use `isinstance`. The result is also an instance
    of its former class (so configs are still decoded when they are read). It pickles as `remote_agent`'s class, and
    becomes a plain JobReturn when it is loaded without Hydra. If Hydra is not loaded, the JobReturn is returned
    unchanged.
    """
    if not is_hydra_loaded():
        return job_return
    from hydra.core.utils import JobReturn as HydrasOwn
    from hydra.core.utils import JobStatus as HydrasStatus

    made: Any = job_return
    if isinstance(made, HydrasOwn):
        return job_return
    result = object.__new__(_hydra_class(type(job_return)))
    result.__dict__.update(job_return.__dict__)
    result.__dict__["status"] = HydrasStatus[job_return.status.name]
    return result  # type: ignore[no-any-return]


_classes: Dict[type, Any] = {}


def _hydra_class(base: type) -> Any:
    """Return the subclass of `base` and of Hydra's JobReturn."""
    cls = _classes.get(base)
    if cls is None:
        from hydra.core.utils import JobReturn as HydrasOwn

        cls = type("HydraJobReturn", (base, HydrasOwn), {"__module__": __name__, "__reduce__": _reduce_job_return})
        _classes[base] = cls
    return cls


def _reduce_job_return(self: Any) -> Tuple[Any, ...]:
    fields = {name: getattr(self, name) for name in JobReturn.__dataclass_fields__}
    fields["status"] = self.status.name
    return (job_return_from, (fields,))


def job_return_from(fields: Dict[str, Any]) -> JobReturn:
    """Make a JobReturn from its pickled fields. If Hydra can be imported, it is an instance of Hydra's class, too."""
    from remote_agent.job import JobStatus

    job_return = JobReturn(**{key: value for key, value in fields.items() if key in JobReturn.__dataclass_fields__})
    job_return.status = JobStatus[fields["status"]]
    try:
        import hydra.core.utils  # noqa: F401
    except ImportError:
        return job_return
    return as_hydra(job_return)


#: Pickles look for it there (docs/stored.md).
job_return_from.__module__, job_return_from.__qualname__ = "remote_agent.by_reference", "job_return"


# -- callbacks and tasks ---------------------------------------------------------------------------------------------


def instantiate(spec: Any) -> Any:
    """Build an object from its `_target_` node, and from nested nodes, with Hydra's `instantiate`. Without Hydra, the
    plain part of its rules is used (`_target_`, `_args_`, `_partial_`, nesting).

    Raises:
        Exception: whatever importing or calling the target raises. With Hydra, it is wrapped in an
        InstantiationException.
    """
    try:
        from hydra.utils import instantiate as by_hydra
    except ImportError:
        return _instantiate_plainly(spec)
    from omegaconf import OmegaConf

    node = spec if OmegaConf.is_config(spec) else OmegaConf.create(spec, flags={"allow_objects": True})
    return by_hydra(node)


def _instantiate_plainly(spec: Any) -> Any:
    if isinstance(spec, (list, tuple)):
        return [_instantiate_plainly(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    values = {key: _instantiate_plainly(value) for key, value in spec.items()}
    if "_target_" not in values:
        return values
    target = locate(values.pop("_target_"))
    args = values.pop("_args_", ())
    is_partial = values.pop("_partial_", False)
    for key in ("_recursive_", "_convert_"):
        values.pop(key, None)
    if is_partial:
        import functools

        return functools.partial(target, *args, **values)
    return target(*args, **values)


def locate(path: str) -> Any:
    """Return the object that a dotted path names.

    Raises:
        ImportError: it cannot be imported.
    """
    parts = path.split(".")
    target: Any = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], 1):
        try:
            target = getattr(target, part)
        except AttributeError:
            # It may be a submodule that nobody has imported yet.
            target = importlib.import_module(".".join(parts[: index + 1]))
    return target


def resolve_task(task: Any) -> Callable[..., Any]:
    """Return the undecorated task function from a callable or `module:qualified name`."""
    if isinstance(task, str):
        module, _, qualname = task.partition(":")
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
        task = found
    return undecorated(task)


def undecorated(task: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function below `@hydra.main`, which has it as `__wrapped__`. Other decorators stay."""
    code = getattr(task, "__code__", None)
    inner = getattr(task, "__wrapped__", None)
    if inner is not None and code is not None and code.co_name == "decorated_main":
        return inner  # type: ignore[no-any-return]
    return task


# -- state of the process --------------------------------------------------------------------------------------------


def set_hydra_config(config: Any, node: Any) -> None:
    """Do the same as `HydraConfig.set_config(config)`, with `node` as the copy of `config.hydra` that it would make.

    Raises:
        TypeError: `config.hydra` is not a HydraConf.
    """
    from hydra.conf import HydraConf
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    OmegaConf.set_readonly(config.hydra, True)
    node_type = OmegaConf.get_type(config, "hydra")
    if node_type is None or not issubclass(node_type, HydraConf):
        raise TypeError("the config's hydra node is a {}, not a HydraConf".format(node_type))
    shell = config_of("hydra", node)
    OmegaConf.set_readonly(node, True)
    # So that interpolations refer to the application's config (as in hydra/core/hydra_config.py).
    node._set_parent(config)
    HydraConfig.instance().cfg = shell


def set_job_name(name: str) -> None:
    """On the host: set this job's name in `hydra.core.utils.JobRuntime`."""
    from hydra.core.utils import JobRuntime

    JobRuntime.instance().set("name", name)


def chdir_by_default() -> bool:
    """Return Hydra's default for `hydra.job.chdir`, which depends on the version base."""
    from hydra import version

    return not version.base_at_least("1.2")
