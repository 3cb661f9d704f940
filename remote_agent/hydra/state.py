"""Captures Hydra's process-wide state on the controller, and restores it in the processes of the jobs.

Rule: if possible, it is sent as text (version base, job name, search path), so that controller and host may have
different Pythons. Each resolver and each config has its own pickle, so that one that the host cannot load affects no
other. What the application registers itself when it is imported on the host stays. Only what is missing then is
restored. What cannot be restored is reported.
"""
# ruff: noqa: SLF001  (Hydra and omegaconf keep their state in private attributes)

import contextlib
import importlib
import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from remote_agent.hydra.compat import is_hydra_loaded
from remote_agent.shared.failure import safe_text, type_name

__all__ = ["ProcessWide", "capture", "prepare_hydra", "restore", "without_start"]

#: Modules whose resolvers every host has.
_OWN_RESOLVERS = ("omegaconf.", "hydra.core.utils.")
#: Names in a pickle of cloudpickle that holds code.
_BY_VALUE = (b"_function_setstate", b"_make_function", b"_make_skeleton_")
#: The provider of Hydra's own configs in the ConfigStore, which every host has.
_OWN_CONFIGS = "hydra"
#: Groups whose configs only a controller uses. They come from plugins that a host need not have.
_CONTROLLERS_GROUPS = (("hydra", "launcher"), ("hydra", "sweeper"))
#: Types of values that can be sent without a config's classes.
_PLAIN = (type(None), bool, int, float, str, bytes)
#: The version of what `capture` makes. Version 1 is read, too, because an earlier version's runs may be resumed.
_VERSION = 2
#: How many configs of the ConfigStore a note names.
_MAX_NAMED = 5


# -- on the controller -----------------------------------------------------------------------------------------------


def capture(
    dumps: Callable[[Any], bytes], below: Callable[[str], Optional[str]] = lambda path: None
) -> Optional[Dict[str, Any]]:
    """On the controller: return the parts of Hydra's process-wide state that a job needs, as plain data; None if Hydra
    is not loaded.

    These are the version base, the job name (`JobRuntime`), the search path that `compose()` uses, the configs in the
    ConfigStore, and every resolver that neither omegaconf nor Hydra registered.

    Args:
        dumps: serializes a resolver's function, or configs.
        below: returns a folder's path relative to the code that is sent; None if it is not in that code.
    """
    if not is_hydra_loaded():
        return None
    from hydra import version
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime

    base = version.VersionBase.instance().getbase() if version.VersionBase in Singleton._instances else None
    # As Hydra asks: a version of its module that was imported again has another such object.
    is_set = base is not None and type(base) is not type(version._UNSPECIFIED_)
    return {
        "version": _VERSION,
        "python": list(sys.version_info[:2]),
        "version_base": str(base) if is_set else None,
        "job_name": str(JobRuntime.instance().get("name")),
        "resolvers": _capture_resolvers(dumps),
        "search_path": _capture_search_path(below),
        "configs": _capture_configs(dumps),
    }


def _capture_resolvers(dumps: Callable[[Any], bytes]) -> List[Dict[str, Any]]:
    from omegaconf.basecontainer import BaseContainer

    captured = []
    for name, wrapper in BaseContainer._resolvers.items():
        cells = dict(zip(wrapper.__code__.co_freevars, wrapper.__closure__ or ()))
        function = cells["resolver"].cell_contents if "resolver" in cells else wrapper
        module = getattr(function, "__module__", None) or ""
        if (module + ".").startswith(_OWN_RESOLVERS):
            continue
        captured.append(
            {
                "name": name,
                "module": module,
                "use_cache": bool(cells["use_cache"].cell_contents) if "use_cache" in cells else False,
                **_pickled(function, dumps),
            }
        )
    return captured


def _pickled(value: Any, dumps: Callable[[Any], bytes]) -> Dict[str, Any]:
    """Return `pickle` (None if it cannot be made; `why` says why) and whether code in it is pickled `by_value`."""
    try:
        data = dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the host learns why there is no pickle
        return {"pickle": None, "by_value": False, "why": "{}: {}".format(type_name(error), safe_text(error))}
    return {"pickle": data, "by_value": any(maker in data for maker in _BY_VALUE), "why": ""}


def _capture_search_path(below: Callable[[str], Optional[str]]) -> Optional[List[Tuple[str, str, Optional[str]]]]:
    """Return (provider, path, path relative to the code that is sent) of each place; None if nothing could compose
    here.
    """
    from hydra.core.global_hydra import GlobalHydra

    holder = GlobalHydra.instance()
    if not holder.is_initialized():
        return None
    captured = []
    for element in holder.config_loader().get_search_path().get_path():
        scheme, found, path = element.path.rpartition("://")
        is_folder = not found or scheme == "file"
        captured.append((element.provider, element.path, below(path) if is_folder else None))
    return captured


def _capture_configs(dumps: Callable[[Any], bytes]) -> List[Dict[str, Any]]:
    """Return the configs in the ConfigStore that are not Hydra's own, each with its path, its pickle, and its plain
    content.
    """
    from hydra.core.config_store import ConfigStore

    return [
        {
            "path": list(path),
            "provider": node.provider,
            "package": node.package,
            "plain": _plain(node.node),
            **_pickled(node, dumps),
        }
        for path, node in _configs(ConfigStore.instance().repo)
        if node.provider != _OWN_CONFIGS
    ]


def _plain(node: Any) -> Any:
    """Return a config's content without its types; None if it has values that need its classes."""
    from omegaconf import OmegaConf, SCMode
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain = OmegaConf.to_container(node, enum_to_str=True, structured_config_mode=SCMode.DICT)
    except (OmegaConfBaseException, ValueError):
        return None
    return plain if _is_plain(plain) else None


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(one) for key, one in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


def _configs(repo: Dict[str, Any], above: Tuple[str, ...] = ()) -> Iterator[Tuple[Tuple[str, ...], Any]]:
    for name, node in repo.items():
        if isinstance(node, dict):
            yield from _configs(node, (*above, name))
        else:
            yield (*above, name), node


# -- on the host -----------------------------------------------------------------------------------------------------


def prepare_hydra() -> None:
    """On the host: register Hydra's resolvers and its plugins, once, before anything of a Hydra app is unpickled.

    Plugin discovery executes plugin modules again. After a config was unpickled, that would make the config's classes a
    second time, and objects with them could not be pickled (hydra#2864).
    """
    from hydra.core.plugins import Plugins
    from hydra.core.utils import setup_globals

    setup_globals()
    Plugins.instance()


@contextlib.contextmanager
def without_start() -> Iterator[None]:
    """Within this context, a function with `@hydra.main` does nothing if it is called without a config.

    This is for importing a script that calls the function without checking `__name__`. On a host, and for `launcher
    run`, the script must be imported and not started.
    """
    importlib.import_module("hydra.main")
    module: Any = sys.modules["hydra.main"]
    names = ("get_args_parser", "_run_hydra")
    before = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if len(before) < len(names):
        yield  # this Hydra starts in another way
        return
    module.get_args_parser, module._run_hydra = _NoArguments, _run_nothing
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


class _NoArguments:
    """A replacement for `hydra.main`'s parser of the command line."""

    experimental_rerun = None

    def parse_args(self) -> "_NoArguments":
        """Return no arguments."""
        return self


def _run_nothing(**kwargs: Any) -> None:
    """A replacement for the function with which `hydra.main` runs Hydra."""


def restore(
    state: Optional[Dict[str, Any]], loads: Callable[[bytes], Any], code_root: Optional[str] = None
) -> List[str]:
    """On the host, in the zygote after the import of the application: restore what `capture` returned.

    Args:
        code_root: the folder of the code that was sent; None if the code is used in place.

    Returns:
        Notes for the user about what could not be restored. What the application registered itself when it was imported
        here stays unchanged.

    Raises:
        ValueError: a later version of the launcher captured it.
    """
    if state is None:
        return []
    if state["version"] == 1:
        state = _of_version_1(state, loads)
    if state["version"] != _VERSION:
        raise ValueError(
            "Hydra's state was recorded as version {}, by another version of the launcher; this one reads versions 1 to {}. "
            "Start the run again".format(state["version"], _VERSION)
        )
    from hydra import version
    from hydra.core.utils import JobRuntime

    if state["version_base"] is not None:
        version.setbase(state["version_base"])
    JobRuntime.instance().set("name", state["job_name"])
    notes = _restore_resolvers(state, loads)
    notes += _restore_configs(state, loads)
    _restore_search_path(state, code_root)
    return notes


def _of_version_1(state: Dict[str, Any], loads: Callable[[bytes], Any]) -> Dict[str, Any]:
    """Convert what version 1 captured to the present form.

    It had all configs in one pickle, without their plain content.
    """
    captured = state["configs"]
    configs = []
    if captured is not None:
        nodes, why = _loaded(captured, state, loads)
        for path in captured["paths"]:
            node = None if why else nodes[tuple(path)]
            configs.append({"path": list(path), "node": node, "why": why, "plain": None})
    return dict(state, version=_VERSION, configs=configs)


def _restore_resolvers(state: Dict[str, Any], loads: Callable[[bytes], Any]) -> List[str]:
    from omegaconf import OmegaConf

    notes = []
    for entry in state["resolvers"]:
        why = entry["why"]
        if not OmegaConf.has_resolver(entry["name"]) and entry["module"] not in ("", "__main__"):
            # A module that registers this resolver when it is imported must find the name free, whenever it is imported.
            try:
                importlib.import_module(entry["module"])
            except Exception as error:  # noqa: BLE001 - the module may raise anything
                why = why or "{}: {}".format(type_name(error), safe_text(error))
        if OmegaConf.has_resolver(entry["name"]):
            continue
        function, problem = _loaded(entry, state, loads)
        if not problem:
            try:
                OmegaConf.register_new_resolver(entry["name"], function, use_cache=entry["use_cache"])
                continue
            except Exception as error:  # noqa: BLE001 - what was sent may be anything
                problem = "{}: {}".format(type_name(error), safe_text(error))
        why = problem if entry["pickle"] is not None else why
        notes.append("the resolver {!r} of the controller is not known on the host: {}".format(entry["name"], why))
    return notes


def _loaded(entry: Dict[str, Any], state: Dict[str, Any], loads: Callable[[bytes], Any]) -> Tuple[Any, str]:
    """Return (what `_pickled` pickled, "") or (None, why not)."""
    if entry["by_value"] and tuple(state["python"]) != sys.version_info[:2]:
        return None, "it is pickled by value, so the host would need Python {}.{}".format(*state["python"])
    if entry["pickle"] is None:
        return None, entry["why"]
    try:
        return loads(entry["pickle"]), ""
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        return None, "{}: {}".format(type_name(error), safe_text(error))


def _restore_configs(state: Dict[str, Any], loads: Callable[[bytes], Any]) -> List[str]:
    from hydra.core.config_store import ConfigStore

    repo = ConfigStore.instance().repo
    here = {path for path, _ in _configs(repo)}
    untyped: List[Tuple[str, str]] = []
    unknown: List[Tuple[str, str]] = []
    for entry in state["configs"]:
        path = tuple(entry["path"])
        if path in here:
            continue
        node, why = (entry["node"], entry["why"]) if "node" in entry else _loaded(entry, state, loads)
        if why:
            node = _without_types(entry)
            if path[:2] not in _CONTROLLERS_GROUPS:
                (unknown if node is None else untyped).append(("/".join(path), why))
        if node is not None and not _store(repo, path, node):
            unknown.append(("/".join(path), "the host has a config with the name of one of its groups"))
    notes = []
    if unknown:
        notes.append("configs in the ConfigStore of the controller are not known on the host: " + _summary_of(unknown))
    if untyped:
        notes.append("configs in the ConfigStore of the controller have no types on the host: " + _summary_of(untyped))
    return notes


def _without_types(entry: Dict[str, Any]) -> Any:
    """Return the config as plain content, because its classes are missing."""
    if entry["plain"] is None:
        return None
    from hydra.core.config_store import ConfigNode
    from omegaconf import OmegaConf

    return ConfigNode(
        name=entry["path"][-1],
        node=OmegaConf.create(entry["plain"]),
        group="/".join(entry["path"][:-1]) or None,
        package=entry["package"],
        provider=entry["provider"],
    )


def _store(repo: Any, path: Tuple[str, ...], node: Any) -> bool:
    """Store a config where it was on the controller. Returns False if a config has the name of one of its groups."""
    for name in path[:-1]:
        repo = repo.setdefault(name, {})
        if not isinstance(repo, dict):
            return False
    repo[path[-1]] = node
    return True


def _summary_of(lost: List[Tuple[str, str]]) -> str:
    """Return the paths, with each reason once."""
    by_reason: Dict[str, List[str]] = {}
    for path, why in lost:
        by_reason.setdefault(why, []).append(path)
    parts = []
    for why, paths in list(by_reason.items())[:_MAX_NAMED]:
        more = ", ..." if len(paths) > _MAX_NAMED else ""
        parts.append("{}{} ({})".format(", ".join(paths[:_MAX_NAMED]), more, why))
    return "; ".join(parts)


def _restore_search_path(state: Dict[str, Any], code_root: Optional[str]) -> None:
    """Restore the search path that `compose()` uses. In a job of Hydra's own launchers it is the application's."""
    if state.get("search_path") is None:
        return
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    search_path = ConfigSearchPathImpl()
    for provider, path, below in state["search_path"]:
        if code_root is not None and below is not None:
            path = "file://" + os.path.normpath(os.path.join(code_root, below))
        search_path.append(provider, path)
    holder = GlobalHydra.instance()
    # The application's import may have initialized it.
    holder.clear()
    holder.initialize(Hydra(task_name=state["job_name"], config_loader=ConfigLoaderImpl(search_path)))


# -- in a worker, between two jobs -----------------------------------------------------------------------------------


class ProcessWide:
    """The process-wide state of Hydra and omegaconf as it is now: resolvers and singletons, but not what these hold in turn."""

    def __init__(self) -> None:
        if is_hydra_loaded():
            from hydra.core.global_hydra import GlobalHydra
            from hydra.core.hydra_config import HydraConfig

            GlobalHydra.instance()
            HydraConfig.instance()
        self._resolvers = dict(_resolvers())
        self._singletons = {one: dict(vars(one)) for one in _singletons()}

    def set_back(self) -> bool:
        """Set it back to what it was. Returns False if a job has registered a resolver.

        Perhaps a module that the job has imported did that, so it must not be undone. Perhaps the next job does it again, which would fail.
        """
        for one, fields in self._singletons.items():
            vars(one).clear()
            vars(one).update(fields)
        return _resolvers() == self._resolvers


def _resolvers() -> Dict[str, Any]:
    module: Any = sys.modules.get("omegaconf.basecontainer")
    return {} if module is None else module.BaseContainer._resolvers


def _singletons() -> List[Any]:
    module: Any = sys.modules.get("hydra.core.singleton")
    return [] if module is None else list(module.Singleton._instances.values())
