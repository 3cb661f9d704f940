"""`launcher clean`: show what runs left on hosts and here, with its size, and remove it.

Rule: everything is shown first, and removed only when the user agrees (or with `--yes`). What a running agent may need is
kept. Results that nobody has collected are kept too, except with `--force`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, flags
from launcher.cli.parameters import Option
from launcher.cli.past_hosts import ask, ask_each, hosts_to_ask, labels
from launcher.errors import LauncherError, UsageError

if TYPE_CHECKING:
    from launcher.hosts.host_spec import HostSpec

__all__ = ["clean"]

_OlderThan = Annotated[
    str,
    Option(
        "--older-than",
        metavar="DURATION",
        help="Remove only what has not changed for this time: 0, 90 (seconds), 30m, 2h, 7d.",
    ),
]
_Yes = Annotated[bool, Option("--yes", "-y", help="Remove without asking.")]
_DryRun = Annotated[bool, Option("--dry-run", help="Show what would be removed, and remove nothing.")]
_Force = Annotated[
    bool,
    Option("--force", help="Also remove results that nobody has collected. They are lost then."),
]
_KINDS = {
    "spool": "spools of runs",
    "bundle": "agents",
    "code": "cached code and files",
    "environment": "environments",
    "python": "Pythons that were fetched",
    "packages": "packages that environments share",
    "warm": "processes that wait for the next run (their memory)",
}


@dataclass
class _Host:
    """One host: what is there, what is to be removed, and what was."""

    spec: HostSpec
    #: Its name, with what distinguishes it from others of that name.
    label: str
    items: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[dict[str, Any]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def bytes(self) -> int:
        """The size of what is to be removed."""
        return sum(int(item["bytes"]) for item in self.chosen)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "host": self.spec.name,
            "label": self.label,
            "items": self.items,
            "chosen": [item["id"] for item in self.chosen],
            "bytes": self.bytes,
            "removed": self.removed,
            "kept": [{"id": item, "why": why} for item, why in self.kept],
            "error": self.error or None,
        }


@flags.takes_options("hosts", "hosts_file", "workdir", hosts="all that your runs used")
def clean(
    older_than: _OlderThan = "1d",
    is_yes: _Yes = False,
    is_dry: _DryRun = False,
    is_forced: _Force = False,
    is_json: arguments.Json = False,
    **given: Any,
) -> None:
    """Show what runs left on hosts (results, files, agents, cached code, environments, waiting processes), and remove it when you agree.

    Without --host or --hosts, it looks on every host of every run that `launcher runs` lists, and on this machine. Runs whose
    folder is gone are removed from the list. Results in local folders are never removed.
    """
    from launcher.options.checks import parse_duration
    from launcher.runs import index

    age = parse_duration(older_than, "--older-than", or_zero=True)
    if is_json and not is_yes:
        is_dry = True
    specs = hosts_to_ask(given["hosts"], given["hosts_file"], given["workdir"])
    found = [_Host(spec, label) for spec, label in zip(specs, labels(specs), strict=True)]
    ask_each(_survey, found)
    for one in found:
        _choose(one, time.time() - age, is_forced)
    gone = [] if given["hosts"] or given["hosts_file"] else [entry for entry in index.entries() if not entry.is_there]
    if not is_json:
        _print_found(found, len(gone))
    total = sum(one.bytes for one in found)
    is_removing = not is_dry and bool(gone or any(one.chosen for one in found))
    if is_removing and not is_yes:
        is_removing = _confirm(total)
    if is_removing:
        ask_each(lambda one: _remove(one, is_forced), [one for one in found if one.chosen])
        for entry in gone:
            index.remove(entry.run)
    if is_json:
        arguments.print_json(
            removed=is_removing, hosts=[one.to_json() for one in found], forgotten=[entry.run for entry in gone]
        )
    elif is_removing:
        _print_removed(found)
    if found and all(one.error for one in found):
        raise LauncherError("no host could be reached; 'launcher doctor HOST' says why, step by step")


def _survey(host: _Host) -> None:
    host.items = [item for item in ask(host, lambda query: query.survey()) or () if _is_item(item)]


def _is_item(item: Any) -> bool:
    """Whether an item of a host has the expected form, so that it can be shown."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and item.get("kind") in _KINDS
        and all(_is_number(item.get(key)) for key in ("bytes", "files", "changed"))
        and all(_is_number(item.get(key, 0)) for key in ("uncollected", "unfinished"))
        and isinstance(item.get("users", []), list)
        and all(isinstance(run, str) for run in item.get("users", []))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _choose(host: _Host, before: float, is_forced: bool) -> None:
    is_running = any(item.get("is_running") for item in host.items)
    for item in host.items:
        left = int(item.get("uncollected", 0)) + int(item.get("unfinished", 0))
        users = item.get("users") or []
        if item["kind"] == "warm":
            host.chosen.append(item)  # it is only for speed, and may go at any time
        elif users:
            host.kept.append(
                (item["id"], f"jobs of run {users[0]} may still run in it; when that run is over, clean again")
            )
        elif item.get("is_running") or (item["kind"] not in ("spool", "environment") and is_running):
            host.kept.append(
                (item["id"], "an agent is running on the host, and may need it; when its run is over, clean again")
            )
        elif left and not is_forced:
            host.kept.append(
                (
                    item["id"],
                    "it has results that nobody has collected; 'launcher attach' collects them, --force removes them",
                )
            )
        elif item["changed"] > before:
            host.kept.append((item["id"], "it has changed less than --older-than ago; --older-than 0 removes it, too"))
        else:
            host.chosen.append(item)


def _remove(host: _Host, is_forced: bool) -> None:
    answer = ask(host, lambda query: query.remove([item["id"] for item in host.chosen], force=is_forced))
    if answer is not None:
        host.removed = [str(item) for item in answer["removed"]]
        host.kept += [(str(item), str(why)) for item, why in answer["kept"]]


def _confirm(total: int) -> bool:
    from launcher.display.text import size

    if not sys.stdin.isatty():
        raise UsageError("nothing was removed, because there is no terminal to ask on; use --yes")
    print(f"Remove everything that is marked 'to be removed' ({size(total)})? [y/N]: ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print_found(found: list[_Host], gone: int) -> None:
    from launcher.display.text import clean as cleaned
    from launcher.display.text import count, size

    for host in found:
        print(f"{host.label}:")
        if host.error:
            print("  " + "\n  ".join(cleaned(host.error).splitlines()))
            continue
        if not host.items:
            print("  nothing")
        for kind, name in _KINDS.items():
            items = [item for item in host.items if item["kind"] == kind]
            going = [item for item in host.chosen if item["kind"] == kind]
            if items:
                total = size(sum(int(item["bytes"]) for item in items))
                of_going = size(sum(int(item["bytes"]) for item in going))
                print(f"  {name}: {len(items):,}, {total}; to be removed: {len(going):,}, {of_going}")
        reasons = Counter(why for _, why in host.kept)
        for why, number in sorted(reasons.items()):
            print(f"  kept: {number:,} ({cleaned(why)})")
    if gone:
        print(f"index: {count(gone, 'run')} whose folder is gone, to be removed from the list")


def _print_removed(found: list[_Host]) -> None:
    from launcher.display.text import clean as cleaned
    from launcher.display.text import count

    for host in found:
        if host.removed:
            print(f"{host.label}: {count(len(host.removed), 'item')} removed")
        chosen = {item["id"] for item in host.chosen}
        for item, why in host.kept:
            if item in chosen:
                print(f"{host.label}: {cleaned(item)} was kept: {cleaned(why)}")
