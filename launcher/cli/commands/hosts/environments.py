"""`launcher environments`: list the environments of packages on hosts: what each one holds and takes, when it was used, and by whom.

Rule: it builds and removes nothing. What a host says of itself is checked before it is shown.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument, Option
from launcher.cli.past_hosts import ask, ask_each, hosts_to_ask, labels
from launcher.errors import LauncherError, UsageError
from launcher.util.text.quoting import shown

if TYPE_CHECKING:
    from launcher.hosts.host_spec import HostSpec

__all__ = ["environments"]

_Given = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT]]...",
        help="The hosts to ask (default: those of --hosts, else all that your runs used, and this machine).",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]
_Key = Annotated[
    str | None,
    Option(
        "--key",
        metavar="KEY",
        help="Only the environment with this key, or the beginning of it, with its packages.",
        show_default=False,
    ),
]
_Verbose = Annotated[bool, Option("--verbose", "-v", help="Also list the packages of each.")]
_STATES = ("ready", "damaged", "building", "given up", "on nodes")


@dataclass
class _Host:
    """One host, and what it has."""

    spec: HostSpec
    label: str
    items: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "host": self.spec.name,
            "label": self.label,
            "environments": [{**item, "packages": [list(one) for one in item["packages"]]} for item in self.items],
            "error": self.error or None,
        }


@flags.takes_options("hosts_file", "workdir")
def environments(
    hosts: _Given = None,
    key: _Key = None,
    is_verbose: _Verbose = False,
    is_json: arguments.Json = False,
    **given: Any,
) -> None:
    """List the environments of packages on HOSTs: size, age, last use, and the runs that use each one now.

    Of each size, its own part is what removing the environment frees. The shared part is also used by other environments or by the cache.
    """
    if key is not None and not re.fullmatch(r"[0-9a-f]{1,64}", key):
        raise UsageError(f"--key: {shown(key)} is not the beginning of a key, which has the digits 0 to 9 and a to f")
    specs = hosts_to_ask(hosts, given["hosts_file"], given["workdir"])
    found = [_Host(spec, label) for spec, label in zip(specs, labels(specs), strict=True)]
    ask_each(lambda one: _ask(one, key or ""), found)
    if is_json:
        arguments.print_json(hosts=[one.to_json() for one in found])
    else:
        now = time.time()
        for host in found:
            _print(host, now, with_packages=is_verbose or key is not None)
    if found and all(one.error for one in found):
        raise LauncherError("no host could be reached; 'launcher doctor HOST' says why, step by step")
    if key is not None and not any(one.items for one in found):
        raise LauncherError(
            f"no host that was reached has an environment whose key begins with {key}; leave --key out to list all"
        )


def _ask(host: _Host, key: str) -> None:
    items = [item for item in ask(host, lambda query: query.environments()) or () if _is_item(item)]
    host.items = sorted((one for one in items if one["key"].startswith(key)), key=lambda one: -one["used"])


def _is_item(item: Any) -> bool:
    """Whether an item of a host has the expected form, so that it can be shown."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("key"), str)
        and re.fullmatch(r"[0-9a-f]{1,64}", item["key"]) is not None
        and item.get("state") in _STATES
        and all(isinstance(item.get(name), str) for name in ("why", "python", "lock"))
        and isinstance(item.get("nodes", ""), str)
        and all(_is_number(item.get(name)) for name in ("bytes", "shared", "built", "used"))
        and _are_texts(item.get("users"))
        and isinstance(item.get("packages"), list)
        and all(_are_texts(one) and len(one) == 2 for one in item["packages"])
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _print(host: _Host, now: float, *, with_packages: bool) -> None:
    from launcher.display.text import clean, clean_line, count, size

    print(f"{host.label}:")
    if host.error:
        print("  " + "\n  ".join(clean(host.error).splitlines()))
        return
    if not host.items:
        print("  no environment")
    for item in host.items:
        is_whole = item["state"] in ("ready", "damaged", "on nodes")
        parts = [f"{count(len(item['packages']), 'package')}" if is_whole else item["state"]]
        parts.append(f"{size(item['bytes'])} of its own, {size(item['shared'])} shared")
        if is_whole:
            parts += [f"built {_ago(now - item['built'])}", f"used {_ago(now - item['used'])}"]
        if item["users"]:
            parts.append(f"in use by {', '.join(clean_line(run) for run in item['users'])}")
        print(f"  {item['key'][:12]}  {'; '.join(parts)}")
        if item["state"] == "damaged":
            print(f"      damaged: {clean_line(item['why'])}\n      next: a run or 'launcher prepare' builds it again")
        elif item["state"] == "on nodes":
            print(
                f"      only its files are here: each node builds it in {clean_line(item.get('nodes', ''))}, and removes it there"
            )
        elif item["state"] == "given up":
            print("      next: 'launcher clean' removes it")
        if with_packages and is_whole:
            print(
                f"      key {item['key']}\n      Python {clean_line(item['python'])}\n      lock {clean_line(item['lock'])}"
            )
            for name, version in item["packages"]:
                print(f"      {clean_line(name)} {clean_line(version)}")


def _ago(passed: float) -> str:
    """How long ago; the clock of a host may be ahead."""
    from launcher.display.text import about

    return "just now" if passed < 1 else f"{about(passed)} ago"
