"""How the options of a run look on the command line: a new one is a field in `launcher/options/launch_conf.py`, and nothing here.

Rule: flags are made from the fields of LaunchConf (`launcher.options`), which hold help, defaults and checks. What the user
did not say is not set. Written here is only what a command line has differently: `--env` is for two fields, and `outputs` has two flags.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from launcher.cli import completion, parameters
from launcher.errors import UsageError
from launcher.options import Form, LaunchConf, Option, option_fields
from launcher.util.text.quoting import shown

__all__ = ["conf", "conf_values", "flag_of", "takes_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = option_fields()
#: The type of a parameter, where it is not a text.
_TYPES: dict[Form, Any] = {
    Form.NUMBER: int,
    Form.FLAG: bool,
    Form.SWITCH: bool,
    Form.TEXTS: list[str],
    Form.PAIRS: list[str],
    Form.COUNTS: list[str],
    Form.VARIABLES: list[str],
}
_OUTPUT = parameters.Option(
    "--output",
    metavar="PATTERN",
    show_default=False,
    help="Copy back only the outputs that match, such as `*.json`. At the end, a pattern that matched nothing is named. Repeatable.",
)


def takes_options(*fields: str, **usual: str) -> Callable[[F], F]:
    """Give a command the options of these fields of LaunchConf, or of all: its `**given` gets their values, by field.

    The help lists them before the command's own.

    Args:
        usual: defaults that this command has instead of LaunchConf's, by field.
    """

    def add(function: F) -> F:
        own = [
            one.replace(kind=one.KEYWORD_ONLY)
            for one in inspect.signature(function, eval_str=True).parameters.values()
            if one.kind is not one.VAR_KEYWORD
        ]
        # The parser reads a command's options from its signature.
        function.__signature__ = inspect.Signature([*_parameters(fields or tuple(_OPTIONS), usual), *own])  # type: ignore[attr-defined]
        return function

    return add


def _parameters(fields: Iterable[str], usual: Mapping[str, str]) -> list[inspect.Parameter]:
    made = []
    for name in sorted(fields, key=lambda one: _OPTIONS[one].group):
        option = dataclasses.replace(_OPTIONS[name], usual=usual.get(name, _OPTIONS[name].usual))
        if option.form is not Form.NONE:
            made.append(_parameter(name, _TYPES.get(option.form, str), _declared(name, option)))
        if name == "outputs":
            made.append(_parameter("output", list[str], _OUTPUT))
    return made


def _parameter(name: str, type_: Any, declared: Any) -> inspect.Parameter:
    annotation = Annotated[type_ | None, declared]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _declared(name: str, option: Option) -> Any:
    flags = _flags(name, option)
    if option.form is Form.SWITCH:
        flags = (f"{flags[0]}/--no-{flags[0][2:]}",)
    offers: Callable[[str], Any] | None = completion.words(*option.choices) if option.choices else None
    return parameters.Option(
        *flags,
        help=_help(name, option),
        metavar=option.metavar,
        show_default=False,
        autocompletion=completion.hosts if name == "hosts" else offers,
    )


def _help(name: str, option: Option) -> str:
    parts = [option.help]
    if option.form is Form.VARIABLES:
        parts.append("NAME alone forwards a variable of yours.")
    if _TYPES.get(option.form) == list[str]:
        parts.append("Repeatable.")
    usual = option.usual or _written(getattr(LaunchConf, name, None))
    if usual:
        parts.append(f"(default: {usual})")
    return " ".join(parts)


def _written(default: Any) -> str:
    """A default as a user would type it; empty if the help need not show it."""
    if isinstance(default, float):
        sizes = [(size, unit) for size, unit in ((3600, "h"), (60, "m"), (1, "s")) if default % size == 0]
        return f"{default / sizes[0][0]:g}{sizes[0][1]}"
    return "" if isinstance(default, bool) or default in (None, ()) else str(default)


def _flags(name: str, option: Option) -> tuple[str, ...]:
    return option.flags or ("--" + name.replace("_", "-"),)


def flag_of(field: str) -> str:
    """The option that sets a field of LaunchConf, or a key of it: `--max-code-size`, `--on-error upload`."""
    name, _, key = field.partition(".")
    flag = name if name.startswith("-") or name not in _OPTIONS else _flags(name, _OPTIONS[name])[0]
    # Only a pattern can be wrong, not the switch.
    flag = "--output" if name == "outputs" else flag
    return f"{flag} {key}" if key else flag


def conf(given: dict[str, Any]) -> LaunchConf:
    """The LaunchConf of the options that were given.

    Raises:
        UsageError: an option has the wrong form, or its value is not allowed.
    """
    return LaunchConf().replaced(**conf_values(given))


def conf_values(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of LaunchConf that the options set.

    Args:
        given: the values of the parameters that `takes_options` added, by name.

    Raises:
        UsageError: an option has the wrong form.
    """
    values = {name: _read(name, value) for name, value in given.items() if name in _OPTIONS and value not in (None, [])}
    patterns = given.get("output")
    if patterns and "outputs" in values:
        raise UsageError("--output cannot be combined with --outputs or --no-outputs; leave them out")
    if patterns:
        values["outputs"] = tuple(patterns)
    if "env" in values:
        _add_env(values, values.pop("env"))
    return values


def _read(name: str, value: Any) -> Any:
    flag = flag_of(name)
    match _OPTIONS[name].form:
        case Form.TEXTS:
            return tuple(value)
        case Form.PAIRS:
            return dict(_pair(flag, one, _OPTIONS[name].metavar or "KEY=VALUE") for one in value)
        case Form.COUNTS:
            return _counts(flag, value)
        case _:
            return value


def _add_env(values: dict[str, Any], given: Iterable[str]) -> None:
    forwarded, fixed = [], {}
    for one in given:
        name, equals, value = one.partition("=")
        if equals:
            fixed[name] = value
        elif name not in os.environ:
            raise UsageError(f"--env {name}: this variable is not set here; set it, or write --env {name}=VALUE")
        else:
            forwarded.append(name)
    if forwarded:
        values["forward_env"] = tuple(forwarded)
    if fixed:
        values["env"] = fixed


def _pair(option: str, text: str, shape: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{option}: {text!r} does not have the form {shape}, in which neither part is empty")
    return name, value


def _counts(flag: str, given: list[str]) -> int | dict[str, int]:
    if len(given) == 1 and "=" not in given[0]:
        return _number(flag, given[0])
    counts = {}
    for one in given:
        key, number = ("*", one) if "=" not in one else _pair(flag, one, "N or KIND=N")
        counts[key] = _number(flag, number)
    return counts


def _number(flag: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{flag}: {shown(text)} is not a whole number of 0 or more")
    return int(text)
