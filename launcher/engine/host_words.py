"""What a host says of hooks and of files that were not taken, as events and lines for the user.

Rule: a host may say anything, so numbers are checked, texts are cut, and of many files few are named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from launcher import events
from launcher.agents.facts import LeftFiles
from launcher.hosts.limits import limit
from launcher.util.text.quoting import shown_path

__all__ = ["file_lines", "hook_events", "left_text"]

#: How many refused output files of a job are named.
_MAX_TOLD = 20
#: Seconds. No hook begins later, or takes longer.
_LATEST = 1e11
#: How many files below one folder are reported one by one if the same is true of them.
_MAX_ALIKE = 3


def hook_events(at: float, num: int, attempt: int, host: str, hook: dict[str, Any]) -> list[events.Event]:
    """Return that a hook fired on a host, and its error as a warning."""
    name, callback = hook["hook"], hook["callback"]
    times = {"began_at": _within(hook.get("began_at"), _LATEST), "seconds": _within(hook.get("seconds"), _LATEST)}
    fired = events.HookFired(at, name, callback, "host", hook["ok"], num, host, attempt, **times)
    out: list[events.Event] = [fired]
    error = hook.get("error")
    if error is not None:
        source = f"callback {callback}.{name}"
        message = f"{error.get('type', '')}: {error.get('message', '')}"[: limit("text")]
        trace = error.get("traceback", "")[: limit("text")]
        out.append(events.Warned(at, source, message, trace, num, host))
    return out


def _within(number: float | None, most: float) -> float | None:
    """Return a number that a host said, if it can be what it is said to be. A host may send any number."""
    return float(number) if number is not None and 0 <= number <= most else None


def file_lines(files: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each file to report, and one line for all files below a folder with the same report."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, what in files:
        groups.setdefault((path.partition("/")[0] if "/" in path else "", what), []).append(path)
    told = []
    for (top, what), paths in groups.items():
        if top and len(paths) > _MAX_ALIKE:
            common = shown_path(os.path.commonpath([os.path.dirname(path) for path in paths]))
            told.append((len(paths), f"{shown_path(paths[0])} {what}; and {len(paths) - 1} more below {common}"))
        else:
            told += [(1, f"{shown_path(path)} {what}") for path in paths]
    rest = sum(number for number, _ in told[_MAX_TOLD:])
    return [line for _, line in told[:_MAX_TOLD]] + ([f"and {rest} more"] if rest else [])


def left_text(host: str, left: LeftFiles) -> str:
    """Say that files stay on a host, which ones, where, and what to do so that such files come back."""
    names = ", ".join(map(shown_path, left.names))
    more = f" and {left.count - len(left.names):,} more" if left.count > len(left.names) else ""
    which, they = ("a file", "it does") if left.count == 1 else (f"{left.count:,} files so far", "they do")
    return (
        f"jobs have written {which} beside their code, and {they} not come back: {names}{more}\n"
        f"    when the run is over: in {shown_path(left.folder)} on {host}, until 'launcher clean'\n"
        f"    to get such files: write them into hydra.runtime.output_dir, or launcher.current_job().output_dir in a function; "
        f"with hydra.job.chdir=true, a Hydra app works in that folder"
    )
