"""What the import of the application does to the process, for the controller to know whether it has to import it, too.

Rule: it tells names of packages, and yes or no. It never tells contents.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from remote_agent.protocol.messages import Imported

__all__ = ["ImportWatch"]

#: Who put Hydra's own configs into the ConfigStore.
_OWN = "hydra"
_MAX_MODULES = 1000
_INSTALLED = ("site-packages", "dist-packages")


class ImportWatch:
    """Looks at the process now, and again when `told` is called."""

    def __init__(self) -> None:
        self._configs, self._resolvers = _configs(), _resolvers()
        self._process = _process()
        self._has_changed_process = False
        self._modules = set(sys.modules)

    def pause(self) -> None:
        """Stop watching variables and folder until `go_on`."""
        self._has_changed_process |= _process() != self._process

    def go_on(self) -> None:
        """Watch variables and folder again."""
        self._process = _process()

    def told(self) -> Imported:
        """Return what has changed since."""
        new = {name.partition(".")[0] for name in set(sys.modules) - self._modules}
        return {
            "configs": _configs() != self._configs,
            "resolvers": _resolvers() != self._resolvers,
            "process": self._has_changed_process or _process() != self._process,
            "modules": sorted(name for name in new if _is_installed(name))[:_MAX_MODULES],
        }

    def installed(self) -> List[str]:
        """Return the installed modules that were loaded since, in the order in which they were begun."""
        return [name for name in list(sys.modules) if name not in self._modules and _is_importable(name)]

    def named_in(self, folders: Sequence[str]) -> Set[str]:
        """Return the names that occur in the code of modules which were loaded since from these folders."""
        found: Set[str] = set()
        roots = tuple(os.path.join(folder, "") for folder in folders)
        for name in set(sys.modules) - self._modules:
            loader = getattr(sys.modules[name], "__loader__", None)
            file = getattr(sys.modules[name], "__file__", None)
            if isinstance(file, str) and file.startswith(roots) and isinstance(loader, SourceFileLoader):
                found |= _names_of(loader.get_code(loader.name))
        return found


def _names_of(code: Optional[CodeType]) -> Set[str]:
    if code is None:
        return set()
    names = {name.partition(".")[0] for name in code.co_names}
    return names.union(*(_names_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _is_importable(name: str) -> bool:
    """Whether it is an installed module, and is found under that name."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    has_own_name = (
        spec is not None and spec.name == name and spec.origin == getattr(sys.modules[name], "__file__", None)
    )
    return has_own_name and _is_installed(name) and name.partition(".")[0] != "hydra_plugins"


def _configs() -> Dict[Tuple[str, ...], int]:
    """Return the configs in the ConfigStore that are not Hydra's own: path -> identity."""
    module = sys.modules.get("hydra.core.config_store")
    if module is None:
        return {}
    found: Dict[Tuple[str, ...], int] = {}
    waiting: Any = [((), module.ConfigStore.instance().repo)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, dict):
            waiting.extend(((*path, str(name)), inner) for name, inner in node.items())
        elif getattr(node, "provider", None) != _OWN:
            found[path] = id(node)
    return found


def _resolvers() -> Dict[str, int]:
    """Return the resolvers: name -> identity."""
    module = sys.modules.get("omegaconf.basecontainer")
    table = module.BaseContainer._resolvers if module is not None else {}  # noqa: SLF001 - there is no public list
    return {str(name): id(resolver) for name, resolver in table.items()}


def _process() -> Tuple[Dict[str, str], str]:
    """Return the variables and the working folder."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = ""
    return dict(os.environ), folder


def _is_installed(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and any(part in _INSTALLED for part in file.split(os.sep))
