"""What a command takes, written at the parameters of its function: `timeout: Annotated[str | None, Option("--timeout", ...)] = None`.

Rule: the type of a parameter says how it is read. `bool` is a switch, `list[str]` may be given several times, `int` is checked, anything
else is called with the text.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_origin

from launcher.util.frozen import frozen

__all__ = ["Argument", "CommandName", "Exit", "Option", "Parameter", "parameters_of"]

#: Gives the words that a shell offers, or pairs of a word and what it means.
Offer = Callable[[str], Sequence[str | tuple[str, str]]]


class Exit(Exception):
    """Ends the command with this exit code."""

    def __init__(self, code: int = 0) -> None:
        self.code = code


class CommandName(str):
    """A parameter of this type gets the name by which the command was called."""

    __slots__ = ()


class Option:
    """An option: its flags, the longest the one that messages name. `--live/--no-live` is a switch in two directions.

    Args:
        metavar: what stands for the value in the help.
        show_default: whether the help says the default.
        min: the least number that is allowed.
        autocompletion: what a shell offers as a value.
        takes_dash: the value may begin with a dash, if it is no option of the command.
    """

    def __init__(
        self,
        *flags: str,
        help: str = "",
        metavar: str | None = None,
        show_default: bool = True,
        min: int | None = None,
        autocompletion: Offer | None = None,
        takes_dash: bool = False,
    ) -> None:
        self.flags = flags
        self.help = help
        self.metavar = metavar
        self.show_default = show_default
        self.min = min
        self.autocompletion = autocompletion
        self.takes_dash = takes_dash


class Argument(Option):
    """An argument without a flag; the metavar says its name, and brackets that it may be left out."""


@frozen
class Parameter:
    """A parameter of a command's function, as its annotation declares it.

    Attributes:
        name: the function's name for it.
        declared: the option or argument.
        type: the type of one value.
        is_list: it may be given several times.
        default: the value if it is not given.
        is_required: it must be given.
    """

    name: str
    declared: Option
    type: Any
    is_list: bool
    default: Any
    is_required: bool

    @property
    def is_argument(self) -> bool:
        """Whether it has no flag."""
        return isinstance(self.declared, Argument)

    @property
    def is_switch(self) -> bool:
        """Whether it is an option without a value."""
        return self.type is bool

    @property
    def flags_on(self) -> list[str]:
        """The flags that give it, or that set a switch to true."""
        return [flag.partition("/")[0].strip() for flag in self.declared.flags]

    @property
    def flags_off(self) -> list[str]:
        """The flags that set a switch to false."""
        return [off.strip() for flag in self.declared.flags for _, slash, off in [flag.partition("/")] if slash]

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if self.declared.metavar:
            return self.declared.metavar
        return self.name.upper() if self.is_argument else "INTEGER" if self.type is int else "TEXT"


def parameters_of(function: Callable[..., Any]) -> tuple[list[Parameter], str | None]:
    """What a command's function takes, in the order of its parameters, and the parameter that gets the command's name, if there is one.

    Other parameters are left out.
    """
    found, own_name = [], None
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        annotation = parameter.annotation
        if annotation is CommandName:
            own_name = name
        if get_origin(annotation) is not Annotated:
            continue
        kind, declared = get_args(annotation)[:2]
        if get_origin(kind) is types.UnionType:
            kind = next(one for one in get_args(kind) if one is not type(None))
        is_list = get_origin(kind) is list
        is_required = parameter.default is parameter.empty
        found.append(
            Parameter(
                name=name,
                declared=declared,
                type=get_args(kind)[0] if is_list else kind,
                is_list=is_list,
                default=None if is_required else parameter.default,
                is_required=is_required,
            )
        )
    return found, own_name
