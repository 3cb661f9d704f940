"""Frozen dataclasses that are made without generating code: a run's vocabulary is eighty small classes.

Rule: they behave as `dataclasses.dataclass(frozen=True)` makes them, if their fields are plain: `fields`, `replace`, equality, hash,
`repr`, matching, inheritance, pickling. That decorator compiles six functions a class. With it the controller takes 14 % more CPU time
up to the first JobReturn of a local run, and 8 % more to be imported (docs/decisions.md); the tests compare both.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**kwargs: Any) -> Any:
        return lambda decorator: decorator


__all__ = ["frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass. It may have no field that is keyword-only, or that `__init__` does not take."""
    made: type[T] = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    for name, method in vars(_Methods).items():
        if callable(method):
            setattr(made, name, method)
    return made


class _Methods:
    """The methods that `dataclass` would generate for each class."""

    __dataclass_fields__: dict[str, Any]
    __match_args__: tuple[str, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = self.__match_args__
        if not kwargs and len(args) == len(names):
            # This is the usual case, some ten times a job.
            self.__dict__.update(zip(names, args, strict=True))
            return
        fields = self.__dataclass_fields__
        values = dict(zip(names, args, strict=False))
        # The fields include class variables; the names do not.
        if len(args) > len(names) or not kwargs.keys() <= set(names[len(args) :]):
            raise TypeError(f"{type(self).__name__} takes {', '.join(names)}, each of them once")
        for name in names[len(args) :]:
            if name in kwargs:
                values[name] = kwargs[name]
                continue
            field = fields[name]
            if field.default is not MISSING:
                values[name] = field.default
            elif field.default_factory is not MISSING:
                values[name] = field.default_factory()
            else:
                raise TypeError(f"{type(self).__name__} lacks {name!r}")
        self.__dict__.update(values)

    def __repr__(self) -> str:
        fields = self.__dataclass_fields__
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__ if fields[name].repr)
        return f"{type(self).__qualname__}({shown})"

    def __eq__(self, other: object) -> bool:
        return bool(self.__dict__ == other.__dict__) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
