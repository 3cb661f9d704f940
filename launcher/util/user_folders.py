"""Folders and files on the controller that only this user can read, and where they are (XDG Base Directory Specification).

Rule: every folder that is made is 0700, whatever the umask. The agent of this machine uses the same cache and state folders as the
controller, and refuses folders that a group can write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

__all__ = ["cache_folder", "make_user_folder", "runtime_folder", "state_folder", "write_user_file"]

_NAME = "hydra-remote-launcher"


def cache_folder() -> Path:
    """Return the folder for files that may be deleted at any time."""
    return _base("XDG_CACHE_HOME", "~/.cache") / _NAME


def state_folder() -> Path:
    """Return the folder for files that are kept from one run to the next."""
    return _base("XDG_STATE_HOME", "~/.local/state") / _NAME


def runtime_folder() -> Path:
    """What belongs to this machine and this login, such as sockets.

    A login without XDG_RUNTIME_DIR finds what another login of the same user has left: in systemd's folder, or in the state folder.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    usual = Path(f"/run/user/{os.geteuid()}")
    if os.path.isabs(given) and os.path.isdir(given):
        return Path(given) / _NAME
    if usual.is_dir() and os.access(usual, os.W_OK):
        return usual / _NAME
    # A home may be shared by machines, and a socket may not.
    return state_folder() / hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    return Path(given if os.path.isabs(given) else os.path.expanduser(default))


def make_user_folder(folder: Path) -> None:
    """Make a folder and its missing parents. Existing folders are not changed.

    Raises:
        OSError: a folder cannot be made.
    """
    if not folder.is_dir():
        make_user_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def write_user_file(path: Path, data: bytes) -> None:
    """Write a file that is either complete or as it was before. Its folder is made.

    Raises:
        OSError: it cannot be written. Nothing is left of it.
    """
    make_user_folder(path.parent)
    new = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        with open(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
