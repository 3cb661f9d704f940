"""The options of the command line that make a LaunchConf, shared by every command that starts jobs.

Rule: each field of LaunchConf has its option here, and what the user did not say is not set: LaunchConf holds the
defaults and does the checking.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from launcher.cli import completion
from launcher.errors import UsageError
from launcher.util.quoting import shown

__all__ = [
    "AcceptNewHostKeys",
    "AllowType",
    "Code",
    "Env",
    "FailFast",
    "Grace",
    "HookTimeout",
    "Host",
    "HostLossTimeout",
    "Hosts",
    "Isolation",
    "Lease",
    "Live",
    "MaxCodeSize",
    "MaxFailures",
    "MaxOutputBytes",
    "OnError",
    "OnHostLoss",
    "Output",
    "Outputs",
    "Python",
    "Results",
    "Retries",
    "Setup",
    "ShutdownTimeout",
    "Timeout",
    "Workdir",
    "conf_values",
    "flag_of",
]

#: Fields of LaunchConf whose option has another name.
_FLAGS = {
    "allow_types": "--allow-type",
    "forward_env": "--env",
    "hosts": "--host",
    "hosts_file": "--hosts",
    "outputs": "--output",
}


def _option(
    *names: str, group: str, help: str, metavar: str | None = None, offers: Callable[[str], Any] | None = None
) -> Any:
    return typer.Option(
        *names, help=help, metavar=metavar, show_default=False, rich_help_panel=group, autocompletion=offers
    )


_WHERE, _WHAT, _FAIL, _BACK = "Where", "What runs", "When something fails", "What comes back"

Host = Annotated[
    list[str] | None,
    _option(
        "--host",
        "-H",
        group=_WHERE,
        metavar="[USER@]HOST[:PORT][/SLOTS]",
        help="A host; may be repeated. None: this machine.",
        offers=completion.hosts,
    ),
]
Hosts = Annotated[
    str | None, _option("--hosts", group=_WHERE, metavar="FILE", help="A YAML file of hosts with more detail.")
]
Python = Annotated[
    str | None, _option("--python", group=_WHERE, metavar="PATH", help="The jobs' Python, on hosts that name none.")
]
Setup = Annotated[
    list[str] | None,
    _option(
        "--setup",
        group=_WHERE,
        metavar="LINE",
        help="A shell line before that Python, e.g. `module load cuda`; repeatable.",
    ),
]
Env = Annotated[
    list[str] | None,
    _option(
        "--env",
        group=_WHERE,
        metavar="NAME[=VALUE]",
        help="Forward a variable of yours to the jobs, or set one; repeatable.",
    ),
]
Workdir = Annotated[
    str | None,
    _option("--workdir", group=_WHERE, metavar="DIR", help="Folder for cache and state, on hosts that name none."),
]
AcceptNewHostKeys = Annotated[
    bool | None,
    _option("--accept-new-host-keys", group=_WHERE, help="Add unknown host keys to known_hosts instead of refusing."),
]
Code = Annotated[
    str | None,
    _option(
        "--code",
        group=_WHAT,
        metavar="auto|shared",
        offers=completion.words("auto", "shared"),
        help="auto: the project travels; shared: hosts see the same files.",
    ),
]
MaxCodeSize = Annotated[
    str | None,
    _option("--max-code-size", group=_WHAT, metavar="SIZE", help="Cap of the code that travels (100MiB)."),
]
Isolation = Annotated[
    str | None,
    _option(
        "--isolation",
        group=_WHAT,
        metavar="auto|fork|spawn",
        offers=completion.words("auto", "fork", "spawn"),
        help="spawn: a fresh process per job, not a fork.",
    ),
]
Timeout = Annotated[
    str | None, _option("--timeout", group=_FAIL, metavar="DURATION", help="End a job after this: 90, 30m, 1h30m.")
]
Grace = Annotated[
    str | None, _option("--grace", group=_FAIL, metavar="DURATION", help="Time from SIGTERM to SIGKILL (10s).")
]
HookTimeout = Annotated[
    str | None, _option("--hook-timeout", group=_FAIL, metavar="DURATION", help="Time for a job's end hooks (5m).")
]
ShutdownTimeout = Annotated[
    str | None,
    _option(
        "--shutdown-timeout",
        group=_FAIL,
        metavar="DURATION",
        help="For its process to end then: threads, atexit (as --hook-timeout).",
    ),
]
Retries = Annotated[
    list[str] | None,
    _option(
        "--retries", group=_FAIL, metavar="N|KIND=N", help="Further attempts of a failed job, or by kind: killed=2."
    ),
]
OnHostLoss = Annotated[
    str | None,
    _option(
        "--on-host-loss",
        group=_FAIL,
        metavar="wait|retry|fail",
        offers=completion.words("wait", "retry", "fail"),
        help="Jobs of a host that stays away: wait, run elsewhere, fail.",
    ),
]
HostLossTimeout = Annotated[
    str | None,
    _option(
        "--host-loss-timeout",
        group=_FAIL,
        metavar="DURATION",
        help="Time after which a host that stays away is given up (10m).",
    ),
]
FailFast = Annotated[bool | None, _option("--fail-fast", group=_FAIL, help="Stop after the first failed job.")]
MaxFailures = Annotated[
    int | None, _option("--max-failures", group=_FAIL, metavar="N", help="Stop after N failed jobs.")
]
Lease = Annotated[
    str | None,
    _option(
        "--lease",
        group=_FAIL,
        metavar="DURATION",
        help="A host that has not heard from here for so long ends its jobs.",
    ),
]
OnError = Annotated[
    list[str] | None,
    _option(
        "--on-error",
        group=_FAIL,
        metavar="CALLBACK=warn|fail|abort",
        help="What an error in a callback does; repeatable.",
    ),
]
Outputs = Annotated[
    bool | None,
    _option("--outputs/--no-outputs", group=_BACK, help="Whether output directories come back (default: they do)."),
]
Output = Annotated[
    list[str] | None,
    _option(
        "--output",
        group=_BACK,
        metavar="PATTERN",
        help="Only outputs that match, e.g. `*.json`; repeatable. What matches nothing is named at the end.",
    ),
]
Live = Annotated[
    bool | None,
    _option(
        "--live/--no-live",
        group=_BACK,
        help="Show what jobs print as they print it. run: on, stdout and stderr are the job's; multirun: off, each line says whose it is.",
    ),
]
Results = Annotated[
    str | None,
    _option(
        "--results",
        group=_BACK,
        metavar="trusted|safe|never",
        offers=completion.words("trusted", "safe", "never"),
        help="Which returned values may be decoded.",
    ),
]
AllowType = Annotated[
    list[str] | None,
    _option(
        "--allow-type", group=_BACK, metavar="MODULE.CLASS", help="A class that --results safe makes, too; repeatable."
    ),
]
MaxOutputBytes = Annotated[
    str | None,
    _option(
        "--max-output-bytes",
        group=_BACK,
        metavar="SIZE",
        help="Cap of a job's stdout, and of its stderr (64MiB; run: 4GiB).",
    ),
]


def flag_of(field: str) -> str:
    """The option that sets a field of LaunchConf, or a key of it: `--max-code-size`, `--on-error upload`."""
    name, _, key = field.partition(".")
    flag = name if name.startswith("-") else _FLAGS.get(name, "--" + name.replace("_", "-"))
    return f"{flag} {key}" if key else flag


def conf_values(
    *,
    host: list[str] | None = None,
    hosts: str | None = None,
    env: list[str] | None = None,
    outputs: bool | None = None,
    output: list[str] | None = None,
    retries: list[str] | None = None,
    on_error: list[str] | None = None,
    allow_type: list[str] | None = None,
    **same: Any,
) -> dict[str, Any]:
    """The fields of LaunchConf that the options set.

    Args:
        same: options whose names and values are LaunchConf's own.

    Raises:
        UsageError: an option cannot be meant as it is written.
    """
    values: dict[str, Any] = {name: value for name, value in same.items() if value is not None and value != []}
    if host:
        values["hosts"] = tuple(host)
    if hosts is not None:
        values["hosts_file"] = hosts
    _add_env(values, env or [])
    if output and outputs is not None:
        raise UsageError("--output says which outputs come back: leave --outputs and --no-outputs out")
    if output or outputs is not None:
        values["outputs"] = tuple(output) if output else outputs
    if retries:
        values["retries"] = _retries(retries)
    if on_error:
        values["on_error"] = dict(_pair("--on-error", one, "CALLBACK=POLICY") for one in on_error)
    if allow_type:
        values["allow_types"] = tuple(allow_type)
    return values


def _add_env(values: dict[str, Any], given: Iterable[str]) -> None:
    forwarded, fixed = [], {}
    for one in given:
        name, equals, value = one.partition("=")
        if equals:
            fixed[name] = value
        elif name not in os.environ:
            raise UsageError(
                f"--env {name}: there is no such variable to forward; set it here, or say --env {name}=VALUE"
            )
        else:
            forwarded.append(name)
    if forwarded:
        values["forward_env"] = tuple(forwarded)
    if fixed:
        values["env"] = fixed


def _pair(option: str, text: str, shape: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{option}: {text!r} is not {shape}")
    return name, value


def _retries(given: list[str]) -> int | dict[str, int]:
    if len(given) == 1 and "=" not in given[0]:
        return _number(given[0])
    kinds = {}
    for one in given:
        kind, number = ("*", one) if "=" not in one else _pair("--retries", one, "N or KIND=N")
        kinds[kind] = _number(number)
    return kinds


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"--retries: {shown(text)} is not a whole number of 0 or more")
    return int(text)
