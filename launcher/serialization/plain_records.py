"""Makes enum members, and instances of dataclasses, attrs classes and named tuples, from plain data that a host sent.

Rule: the user must have allowed the class by name, and none of its code is called: no `__new__`, `__init__`,
`__post_init__`, `__setattr__`, property or `__hash__` runs. A class that cannot be made without them is refused by
name. Importing the class's module does run that module, so the user has to name the class.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from launcher.errors import ResultNotDecoded

__all__ = ["FindType", "finder", "is_hashed_by_python", "rebuilt"]

#: (module, qualified name) -> the class; None if it was not allowed.
FindType = Callable[[str, str], Any]


def finder(allowed: Iterable[str], *, main_module: str | None, is_main: bool, is_any: bool = False) -> FindType:
    """Return a function that finds the classes that were allowed.

    Args:
        allowed: their names, `module.Class` or `module:Class`.
        main_module: the name under which `__main__` was sent.
        is_main: whether that module runs as `__main__` here.
        is_any: whether any class is allowed.
    """
    names = {name.replace(":", ".", 1) for name in allowed}

    def find(module: str, name: str) -> Any:
        spelled = {module, "__main__"} if module == main_module else {module}
        if not is_any and not any(f"{one}.{name}" in names for one in spelled):
            return None
        try:
            found: Any = (
                sys.modules["__main__"] if is_main and module == main_module else importlib.import_module(module)
            )
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise ResultNotDecoded(
                f"{module}.{name} cannot be imported here: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, type):
            raise ResultNotDecoded(f"{module}.{name} is not a class here")
        return found

    return find


def rebuilt(kind: type, how: str, said: Any) -> Any:
    """Return an enum's member by its name, or make an instance with these fields.

    Args:
        how: `enum`, `dataclass`, `attrs` or `namedtuple`: the kind of the host's class.

    Raises:
        ResultNotDecoded: the class here differs, or cannot be made without running its code.
    """
    if how == "enum":
        members = _own(kind, "_member_map_") if issubclass(kind, enum.Enum) else None
        if not isinstance(members, dict) or said not in members:
            raise _refused(kind, f"it has no member {said[:100]!r} here")
        return members[said]
    if how == "namedtuple":
        names = _own(kind, "_fields")
        if not issubclass(kind, tuple) or not isinstance(names, tuple):
            raise _refused(kind, "it is not a named tuple here")
        _check_names(kind, names, said, is_exact=True)
        _check_quiet(kind)
        return tuple.__new__(kind, [said[name] for name in names])
    names = _names_of_fields(kind, how)
    _check_names(kind, names, said, is_exact=False)
    _check_quiet(kind)
    try:
        made: Any = object.__new__(kind)
    except TypeError as error:  # an abstract class, or a subclass of a type with its own memory layout
        raise _refused(kind, str(error)) from None
    for name, value in said.items():
        _put(made, kind, name, value)
    return made


def is_hashed_by_python(kind: type) -> bool:
    """Whether hashing and comparing its instances runs only code of Python and numpy."""
    if kind.__module__ == "numpy":
        return True
    if not issubclass(kind, enum.Enum):
        return False
    return all(_owner(kind, name).__module__ in ("builtins", "enum") for name in ("__hash__", "__eq__"))


def _names_of_fields(kind: type, how: str) -> tuple[str, ...]:
    if how == "dataclass":
        fields = _own(kind, "__dataclass_fields__")
        if isinstance(fields, dict):
            # The same as `dataclasses.fields`, without asking the class: neither ClassVar nor InitVar.
            is_field = dataclasses._FIELD  # type: ignore[attr-defined]  # noqa: SLF001
            return tuple(name for name, field in fields.items() if field._field_type is is_field)  # noqa: SLF001
    elif how == "attrs":
        fields = _own(kind, "__attrs_attrs__")
        if isinstance(fields, tuple):
            return tuple(field.name for field in fields)
    raise _refused(kind, f"it is no {how[:20]} class here")


def _check_names(kind: type, names: Iterable[str], said: dict[Any, Any], *, is_exact: bool) -> None:
    known = set(names)
    other = [name for name in said if type(name) is not str or name not in known]
    if other:
        raise _refused(kind, f"it has no field {str(other[0])[:100]!r} here")
    missing = sorted(known - set(said))
    if missing and is_exact:
        raise _refused(kind, f"the host sent no value for its field {missing[0]!r}")


def _check_quiet(kind: type) -> None:
    """Check that it has nothing that Python would call by itself later."""
    if _owner(kind, "__del__") is not None:
        raise _refused(kind, "it has a __del__, which would be called")


def _put(made: Any, kind: type, name: str, value: Any) -> None:
    """Set a field without calling `__setattr__`: in its slot, or in the instance's `__dict__`."""
    attribute = _own(kind, name)
    if isinstance(attribute, types.MemberDescriptorType):
        attribute.__set__(made, value)
        return
    if attribute is not None and hasattr(type(attribute), "__set__"):
        raise _refused(kind, f"its field {name!r} is a property or another descriptor, which would be called")
    if not isinstance(_own(kind, "__dict__"), types.GetSetDescriptorType):
        raise _refused(kind, f"its instances have no place for the field {name!r}")
    object.__getattribute__(made, "__dict__")[name] = value


def _owner(kind: type, name: str) -> Any:
    """Return the class in its MRO that has the attribute, without asking a metaclass."""
    return next(
        (one for one in type.__getattribute__(kind, "__mro__") if name in type.__getattribute__(one, "__dict__")), None
    )


def _own(kind: type, name: str) -> Any:
    owner = _owner(kind, name)
    return None if owner is None else type.__getattribute__(owner, "__dict__")[name]


def _refused(kind: type, why: str) -> ResultNotDecoded:
    return ResultNotDecoded(f"{kind.__module__}.{kind.__qualname__} cannot be made from what the host sent: {why}")
