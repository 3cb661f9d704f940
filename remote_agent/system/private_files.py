"""Private files and folders: mode 0600 and 0700, owned by this user, never reached through a link."""

import os
import pwd
import stat
from typing import Iterable, List

__all__ = ["SpoolError", "check_parent", "make_private_folder", "open_private", "told_replaceable"]


class SpoolError(Exception):
    """The spool cannot be used: it is not ours, has a wrong version, or cannot be written."""


def make_private_folder(path: str) -> str:
    """Make our own folder with mode 0700 (and its parents), or use an existing one.

    Raises:
        SpoolError: it is a link, belongs to another user, or can be written by others.
        OSError: it cannot be made.
    """
    if not os.path.lexists(path):
        parent = os.path.dirname(path)
        if parent and not os.path.isdir(parent):
            os.makedirs(parent, 0o700, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # another process was faster; its folder is checked below
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolError("{} is not a private folder of this user".format(path))
    if status.st_uid != os.geteuid():
        raise SpoolError("{} belongs to another user".format(path))
    if status.st_mode & 0o022:
        raise SpoolError("{} can be written by others".format(path))
    return path


def open_private(path: str, flags: int) -> int:
    """Open our own file with mode 0600, without following a link, closed on exec."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def check_parent(path: str) -> None:
    """Refuse to make our folder in one that everybody may write to, without the sticky bit, because anybody could
    replace ours.

    Raises:
        SpoolError: it is such a folder.
        OSError: it cannot be examined.
    """
    parent = os.path.dirname(path)
    mode = os.stat(parent).st_mode
    if mode & 0o002 and not mode & stat.S_ISVTX:
        raise SpoolError("everybody can write to {}, and could replace its content".format(parent))


def told_replaceable(paths: Iterable[str]) -> List[str]:
    """Say of each folder above ours that everybody may write to, and through which another user could replace ours. Such folders are common
    on clusters, so they are not refused. A link on the way, what a group may write, and the owner of such a folder are not looked at.
    """
    found: List[str] = []
    for path in paths:
        folder, above = os.path.realpath(path), ""
        while above != folder:
            above, folder = folder, os.path.dirname(folder)
            why = _replaced_by(folder)
            if why and why not in found:
                found.append(why)
    return found


def _replaced_by(folder: str) -> str:
    """Say who else could rename what is in a folder; empty if nobody is known."""
    try:
        status = os.stat(folder)
    except OSError:
        return ""  # a folder that may be passed but not examined; nothing is known of it
    if not status.st_mode & 0o002 or status.st_mode & stat.S_ISVTX:
        return ""
    way = "could replace the launcher's folders below it, and so run code as you; name a safer folder with 'workdir'"
    return "everybody can write to {} (its owner is {}), and {}".format(folder, _user(status.st_uid), way)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "user {}".format(uid)
