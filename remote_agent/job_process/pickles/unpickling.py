"""Loading pickles of the controller, also if they name Hydra plugins that this host does not have.

Rule: a config that was composed with a launcher or sweeper plugin holds config classes of that plugin. A host without the plugin
makes stand-ins for these classes, which pickle under the same names. Any other missing module is an error.
"""

import importlib.machinery
import pickle
import sys
import types
from typing import Any, Dict, Optional, Tuple

__all__ = ["loads"]

_PREFIX = "hydra_plugins"


def loads(data: bytes) -> Any:
    """Decode a pickle that the controller, or a job of this host, made.

    Raises:
        Exception: whatever decoding it raises.
    """
    while True:
        try:
            with _StandIns():
                return pickle.loads(data)  # noqa: S301  (made by the controller, which is trusted to run code here)
        except ModuleNotFoundError as error:
            name = error.name or ""
            if name.split(".")[0] != _PREFIX or name in sys.modules:
                raise
            _install(name)


class _StandIns:
    """Within this context, stand-in modules make the classes that are requested."""

    depth = 0

    def __enter__(self) -> None:
        _StandIns.depth += 1

    def __exit__(self, *_: object) -> None:
        _StandIns.depth -= 1


class _Module(types.ModuleType):
    """A stand-in for a module of a plugin that is not installed here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not _StandIns.depth:
            raise AttributeError("{} is not installed on this host (asked for {!r})".format(self.__name__, name))
        made = type(name, (_StandIn,), {"__module__": self.__name__, "__qualname__": name})
        setattr(self, name, made)
        return made


class _StandIn:
    """A stand-in for an object of a plugin's class. It keeps what it was made from."""

    _args: Tuple[Any, ...] = ()

    def __new__(cls, *args: Any, **_: Any) -> "_StandIn":  # noqa: PYI034 - typing.Self is newer than Python 3.8
        made = super().__new__(cls)
        made._args = args
        return made

    def __reduce__(self) -> Tuple[Any, ...]:
        state: Dict[str, Any] = {key: value for key, value in self.__dict__.items() if key != "_args"}
        return (type(self), self._args, state) if state else (type(self), self._args)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self._args))

    @property
    def name(self) -> str:
        """The name that an Enum member would show."""
        return str(self._args[0]) if self._args else type(self).__name__


def _install(name: str) -> None:
    """Install a stand-in for a missing module."""
    module = _Module(name)
    module.__path__ = []  # so that the import system takes it for a package
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    holder: Optional[types.ModuleType] = sys.modules.get(parent)
    if holder is not None:
        setattr(holder, child, module)
