"""Checks of the values that options have: each gives the value as the program uses it, or refuses it.

Rule: the error names the field and says what is allowed. No message shows the value of a variable.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from launcher.errors import ConfigError
from launcher.util.text.near import names_like
from launcher.util.text.quoting import shown
from remote_agent.job import ERROR_KINDS

__all__ = [
    "Check",
    "choice",
    "count",
    "downloads",
    "duration_or_zero",
    "flag",
    "hosts",
    "limit",
    "optional_duration",
    "outputs",
    "parse_duration",
    "parse_size",
    "policies",
    "refused",
    "relative_patterns",
    "resources",
    "retries",
    "sync_interval",
    "text",
    "texts",
    "types",
    "values",
    "variables",
    "workdir",
]

Check = Callable[[Any, str], Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_DURATION = re.compile(rf"({_NUMBER})(ms|[smhd])")
_MAX_SECONDS = 10.0**9
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(rf"({_NUMBER})\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE | re.ASCII)
#: A larger size is a typing error, and no system accepts it.
_MAX_SIZE = 1 << 62
_MAX_COUNT = 10**9
_MAX_SHOWN = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*[.:][^\W\d]\w*(?:\.[^\W\d]\w*)*")


def refused(field: str, what: str) -> ConfigError:
    """The error for a value of this field."""
    return ConfigError.of_option(field, f": {what}")


def parse_duration(value: Any, field: str, *, or_zero: bool = False) -> float:
    """Seconds from a number, or from text such as `90`, `500ms`, `30m` or `1h30m`.

    Raises:
        ConfigError: the value is neither, or is not above zero (with or_zero: is below zero).
    """
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Compare whole numbers first: a number of 400 digits does not fit into a float.
        seconds = float(min(max(value, -1), _MAX_SECONDS)) if isinstance(value, int) else value
    elif isinstance(value, str):
        text = value.strip().lower().replace(" ", "")
        if re.fullmatch(_NUMBER, text):
            seconds = float(text)
        elif text and not _DURATION.sub("", text):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    is_above = seconds is not None and (seconds > 0 or (or_zero and seconds == 0))
    if seconds is None or not is_above or seconds >= _MAX_SECONDS:
        what = "not a duration" if seconds is None else "below zero" if or_zero else "not above zero"
        what = "more than 30 years" if seconds is not None and seconds >= _MAX_SECONDS else what
        raise refused(field, f"{shown(value)} is {what}; write seconds, or text such as 90s, 30m, 1h30m, 7d")
    return seconds


def parse_size(value: Any, field: str) -> int:
    """Bytes from a number, or from text such as `100MiB`, `100M` (the same) or `100MB` (a hundred million).

    Raises:
        ConfigError: the value is neither, or is not above zero.
    """
    size: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            number, prefix, suffix = match.groups()
            base = 1000 if (suffix or "").lower() == "b" else 1024
            size = int(float(number) * base ** (_POWERS[prefix.lower()] if prefix else 0))
    if size is None or not 0 < size <= _MAX_SIZE:
        raise refused(field, f"{shown(value)} is not a size above zero; write bytes, or text such as 100MiB, 2GiB")
    return size


def choice(*allowed: str) -> Check:
    """One of these words."""

    def check(value: Any, field: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            near = names_like(value[:_MAX_SHOWN], allowed) if isinstance(value, str) else []
            hint = f"; did you mean {near[0]}?" if near else ""
            raise refused(field, f"{shown(value)} is not one of {', '.join(allowed)}{hint}")
        return value

    return check


def texts(value: Any, field: str) -> tuple[str, ...]:
    """A list of texts; a single one becomes a list of one."""
    given = (value,) if isinstance(value, str) else value
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else (None,)
    for one in values:
        if not isinstance(one, str) or not one.strip() or "\0" in one:
            what = (
                f"{shown(one)} in the list is empty, or has a NUL character"
                if isinstance(one, str)
                else f"{shown(value)} is not a list of texts"
            )
            raise refused(field, what)
    return values


def hosts(value: Any, field: str) -> tuple[Any, ...]:
    """A list of hosts, of which each may be text, a mapping or a host of `launcher.hosts.inventory`."""
    given = (value,) if isinstance(value, (str, Mapping)) or value is None else value
    if not isinstance(given, Iterable):
        raise refused(field, f"{shown(value)} is not a list of hosts")
    hosts = tuple(given)
    for one in hosts:
        is_text = isinstance(one, str) and bool(one.strip())
        # An object that has an address comes from launcher.hosts.inventory.
        if not (is_text or isinstance(one, Mapping) or hasattr(one, "address")):
            raise refused(field, f"{shown(one)} is neither `[user@]host[:port][/slots]` nor a mapping with a name")
    return hosts


def flag(value: Any, field: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise refused(field, f"{shown(value)} is not true or false")
    return value


def text(value: Any, field: str) -> str | None:
    """A line of text, or None."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is not None and not (isinstance(value, str) and value.strip() and not set(value) & set("\0\r\n")):
        raise refused(field, f"{shown(value)} is not a line of text")
    return value


def workdir(value: Any, field: str) -> str | None:
    """A folder on a host, or None."""
    path = text(value, field)
    if path is not None and not path.startswith(("/", "~/")):
        raise refused(field, f"{shown(path)} is not an absolute path, and does not begin with '~/'")
    return path


def values(value: Any, field: str) -> dict[str, str]:
    """Names of variables with their values."""
    if not isinstance(value, Mapping):
        raise refused(field, "is not a mapping of names to values")
    for name, one in value.items():
        _variable(name, field)
        # A value may be a secret, so no message shows it.
        if not isinstance(one, (str, int, float)) or isinstance(one, bool) or "\0" in str(one):
            raise refused(f"{field}.{name}", "the value is not text; put it in quotes")
    return {str(name): str(one) for name, one in value.items()}


def _variable(name: Any, field: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refused(
            field, f"{shown(name)} is not the name of a variable (letters, digits and _, without a digit in front)"
        )
    return name


def variables(value: Any, field: str) -> tuple[str, ...]:
    """Names of variables."""
    return tuple(_variable(name, field) for name in texts(value, field))


def outputs(value: Any, field: str) -> bool | tuple[str, ...]:
    """All, none, or patterns below the output directory."""
    if isinstance(value, bool):
        return value
    return relative_patterns(value, field)


def relative_patterns(value: Any, field: str) -> tuple[str, ...]:
    """Patterns below the output directory."""
    patterns = texts(value, field)
    for pattern in patterns:
        if pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
            raise refused(
                field, f"{pattern!r} leads out of the output directory; write a relative pattern without `..`"
            )
    return patterns


def downloads(value: Any, field: str) -> bool | tuple[str, ...]:
    """Yes, no, or the beginnings of addresses."""
    if isinstance(value, bool):
        return value
    # Few runs need it.
    from launcher.util.text.plain_addresses import plain_address

    prefixes = texts(value, field)
    if not all(plain_address(prefix) for prefix in prefixes):
        # It may have a password, so it is not shown.
        raise refused(
            field,
            "write true, false, or the beginning of an https address without user, password and query, such as "
            "'https://packages.example.org/'",
        )
    return prefixes or False


def duration_or_zero(value: Any, field: str) -> float:
    """Seconds from zero on."""
    return parse_duration(value, field, or_zero=True)


def sync_interval(value: Any, field: str) -> float | None:
    """Seconds from one on, or None."""
    seconds = optional_duration(value, field)
    if seconds is not None and seconds < 1:
        raise refused(field, f"{shown(value)} is less than a second; write 1 or more, such as 30s")
    return seconds


def optional_duration(value: Any, field: str) -> float | None:
    """Seconds above zero, or None."""
    return None if value is None else parse_duration(value, field)


def retries(value: Any, field: str) -> int | dict[str, int]:
    """A number, or a number for each kind of error."""
    if not isinstance(value, Mapping):
        return count(value, field)
    for kind, number in value.items():
        if kind != "*" and kind not in ERROR_KINDS:
            near = names_like(str(kind), ERROR_KINDS)
            hint = f"did you mean {near[0]!r}?" if near else f"the kinds are {', '.join(ERROR_KINDS)} and *"
            raise refused(field, f"unknown kind of error {kind!r}; {hint}")
        if count(number, f"{field}.{kind}") and kind == "cancelled":
            raise refused(field, "a job that was cancelled is not tried again; leave `cancelled` out")
    return {str(kind): number for kind, number in value.items()}


_RESOURCES = ("gpus", "cpus", "memory", "nodes", "tasks", "time")


def resources(value: Any, field: str) -> dict[str, int]:
    """What a job needs: whole GPUs and CPUs, and memory as a size; on a cluster nodes, tasks and time. None means none, and is left out."""
    if not isinstance(value, Mapping):
        raise refused(
            field, f"{shown(value)} is not a mapping of {', '.join(_RESOURCES)}; write for example {{gpus: 1, cpus: 4}}"
        )
    made = {}
    for name, given in value.items():
        if name not in _RESOURCES:
            near = names_like(str(name), _RESOURCES)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(_RESOURCES)}"
            raise refused(field, f"unknown resource {shown(name)}; {hint}")
        if given is None:
            continue
        number = int(given) if isinstance(given, str) and re.fullmatch(r"[0-9]{1,9}", given) else given
        if name == "memory":
            made[name] = parse_size(given, f"{field}.memory")
        elif name == "time":
            made[name] = _cluster_time(given, f"{field}.time")
        elif isinstance(number, bool) or not isinstance(number, int) or not (name != "gpus") <= number <= _MAX_COUNT:
            raise refused(f"{field}.{name}", f"{shown(given)} is not a whole number from {int(name != 'gpus')} on")
        else:
            made[name] = number
    return check_tasks(made, field)


def check_tasks(needs: dict[str, int], field: str) -> dict[str, int]:
    """Refuse fewer tasks than nodes: Slurm would give fewer nodes, and say so to nobody."""
    nodes = needs.get("nodes", 0)
    if needs.get("tasks", nodes) < nodes:
        raise refused(
            f"{field}.tasks",
            f"{needs['tasks']} are fewer than {nodes} nodes, and each node has one at least; write {nodes} or more, or fewer nodes",
        )
    return needs


_SLURM_TIME = re.compile(r"(?:([0-9]{1,4})-)?([0-9]{1,6}):([0-9]{2})(?::([0-9]{2}))?")
#: Slurm counts minutes. Who writes a small number means these, as in `slurm:`.
_LEAST_TIME = 60


def _cluster_time(value: Any, field: str) -> int:
    """Seconds from a duration, or from text as Slurm writes it."""
    found = _SLURM_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        seconds = math.ceil(parse_duration(value, field))
    else:
        days, *rest = (int(one or 0) for one in found.groups())
        first, second, third = rest if found.group(4) or found.group(1) else (0, *rest[:2])
        seconds = 86400 * days + 3600 * first + 60 * second + third
    if not _LEAST_TIME <= seconds < _MAX_SECONDS:
        raise refused(field, f"{shown(value)} is not a minute or more; write text such as 30m, 4h or 4:00:00")
    return seconds


def count(value: Any, field: str) -> int:
    """A whole number from zero on."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise refused(field, f"{shown(value)} is not a whole number from 0 to {_MAX_COUNT}")
    return value


def limit(value: Any, field: str) -> int | None:
    """A whole number above zero, or None."""
    if value is None:
        return None
    if count(value, field) == 0:
        raise refused(field, "0 would stop the run before its first job; leave the option out for no limit")
    return int(value)


def policies(value: Any, field: str) -> dict[str, str]:
    """What an error in each callback does."""
    if not isinstance(value, Mapping):
        raise refused(
            field,
            f"{shown(value)} is not a mapping of callback names to warn, fail or abort; write for example {{upload: fail}}",
        )
    return {str(name): choice("warn", "fail", "abort")(policy, f"{field}.{name}") for name, policy in value.items()}


def types(value: Any, field: str) -> tuple[str, ...]:
    """Names of classes; a class becomes its name."""
    given = (value,) if isinstance(value, (str, type)) else value
    if not isinstance(given, Iterable):
        raise refused(field, f"{shown(value)} is not a list of types; write for example ['my_app.Result']")
    names = tuple(f"{one.__module__}.{one.__qualname__}" if isinstance(one, type) else one for one in given)
    for name in names:
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise refused(field, f"{shown(name)} is not the name of a type, as module.Class or module:Class")
    return names
