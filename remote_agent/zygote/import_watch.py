"""What the import of the application does to the process, for the controller to know whether it has to import it, too.

Rule: it tells names of packages, and yes or no. It never tells contents.
"""

import os
import sys
from typing import Any, Dict, Tuple

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
        self._modules = set(sys.modules)

    def told(self) -> Imported:
        """Return what has changed since."""
        new = {name.partition(".")[0] for name in set(sys.modules) - self._modules}
        return {
            "configs": _configs() != self._configs,
            "resolvers": _resolvers() != self._resolvers,
            "process": _process() != self._process,
            "modules": sorted(name for name in new if _is_installed(name))[:_MAX_MODULES],
        }


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
