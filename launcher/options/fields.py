"""What an option is: its check, its help, and how it is written on the command line.

Rule: an option is described once. The command line (`launcher.cli.flags`) and the schema of the Hydra plugin follow from that.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from launcher.options import checks
from launcher.util.frozen import frozen

__all__ = ["Form", "Group", "Option", "chosen", "field"]


class Group(enum.IntEnum):
    """What an option is about; the command line lists the options in this order."""

    HOSTS = 1
    CODE = 2
    RESULTS = 3
    FAILURES = 4


class Form(enum.Enum):
    """How a field is written on the command line."""

    #: One text, which the field's check reads.
    TEXT = enum.auto()
    #: A whole number.
    NUMBER = enum.auto()
    #: `--name` sets true.
    FLAG = enum.auto()
    #: `--name` sets true, `--no-name` false.
    SWITCH = enum.auto()
    #: One text for each time that the option is given.
    TEXTS = enum.auto()
    #: `KEY=VALUE` for each time.
    PAIRS = enum.auto()
    #: `N`, or `KEY=N` for each time.
    COUNTS = enum.auto()
    #: `NAME=VALUE` for each time; `NAME` alone goes to `forward_env`.
    VARIABLES = enum.auto()
    #: No option of its own.
    NONE = enum.auto()


@frozen
class Option:
    """What Python, the command line and Hydra need to know of a field of LaunchConf.

    Attributes:
        check: gives the value as the program uses it, or refuses it.
        help: what the option does, in one or two sentences.
        flags: its names on the command line; empty: `--` and the name of the field.
        metavar: what stands for its value there.
        choices: all values that are allowed; empty: the check knows.
        schema: its type in Hydra's schema; empty: the one that follows from the field's type.
        usual: what the help says of the default, where the value alone does not say it.
        is_secret: no message and no file has its value.
    """

    check: checks.Check
    help: str
    group: Group
    form: Form = Form.TEXT
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    schema: str = ""
    usual: str = ""
    is_secret: bool = False


def field(default: Any, option: Option) -> Any:
    """A field of LaunchConf with its option."""
    metadata = {"option": option}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, repr=not option.is_secret, metadata=metadata)
    return dataclasses.field(default=default, repr=not option.is_secret, metadata=metadata)


def chosen(default: str, *choices: str, group: Group, help: str) -> Any:
    """A field that is one of a few words."""
    option = Option(checks.choice(*choices), help, group, choices=choices, metavar="|".join(choices))
    return field(default, option)
