"""Requests from another process to the controller that drives a run: small files in the run's folder.

Rule: a request appears complete, because it is renamed into place, and it is read once. Only the user may write to the folder
(0700), and the user could also signal the controller.

    .launcher/requests/<name>.json    {"version": 1, "what": "cancel", "num": N or null, "kill": bool, "why": text}
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

from launcher.runs.journal import FOLDER
from launcher.util.frozen import frozen
from launcher.util.user_folders import write_user_file

__all__ = ["CancelRequest", "ask", "pop_all"]

VERSION = 1
_FOLDER = "requests"


@frozen
class CancelRequest:
    """Cancel the run, or one job of it. `kill`: at once."""

    num: int | None = None
    kill: bool = False
    why: str = ""


def ask(folder: Path, request: CancelRequest) -> None:
    """Leave a request for the controller that drives the run of this folder.

    Raises:
        OSError: the folder cannot be written.
    """
    requests = folder / FOLDER / _FOLDER
    requests.mkdir(mode=0o700, exist_ok=True)
    content = json.dumps({"version": VERSION, "what": "cancel", **asdict(request)})
    write_user_file(requests / f"{secrets.token_hex(8)}.json", content.encode())


def pop_all(folder: Path) -> list[CancelRequest]:
    """Remove the requests that wait, and return them. Other files are left alone."""
    requests = folder / FOLDER / _FOLDER
    try:
        names = [name for name in os.listdir(requests) if name.endswith(".json")]
    except OSError:
        return []
    taken = []
    for name in names:
        path = requests / name
        try:
            content = json.loads(path.read_bytes())
            path.unlink()
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("version") == VERSION and content.get("what") == "cancel":
            num = content.get("num")
            taken.append(
                CancelRequest(
                    num if isinstance(num, int) else None, bool(content.get("kill")), str(content.get("why", ""))
                )
            )
    return taken
