"""The settings of a host, one check for each: what a hosts file may say, and how it is read.

Rule: a value that is not allowed is refused. The message begins with the place that the caller names, and says what is allowed. It never has the
value of a variable.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal

from launcher.errors import ConfigError, InventoryError
from launcher.hosts.host_spec import PYTHON
from launcher.hosts.slurm_options import slurm_options
from launcher.util.text.quoting import shown

__all__ = ["FIELD_CHECKS", "SSH_ONLY", "USER", "check_port", "check_slots", "is_fingerprint"]

_MAX_SLOTS = 10_000
USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\+-]{0,63}\$?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[^\x00-\x1f\x7f]+")
_EXTRA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_GPU = re.compile(r"[A-Za-z0-9/-]{1,80}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def check_port(where: str, value: Any) -> int:
    """The number of a port, which may be text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise InventoryError(f"{where}: port {shown(value)} is not a number from 1 to 65535")
    return value


def check_slots(where: str, value: Any) -> int | Literal["auto"] | None:
    """How many jobs at once."""
    if value is None or value == "auto":
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SLOTS:
        raise InventoryError(f"{where}: slots {shown(value)} is neither a number from 1 to {_MAX_SLOTS} nor 'auto'")
    return value


def _cpus(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SLOTS:
        raise InventoryError(f"{where}: {shown(value)} is not a number from 1 to {_MAX_SLOTS}")
    return value


def _memory(where: str, value: Any) -> int:
    from launcher.options.checks import parse_size

    try:
        return parse_size(value, where)
    except ConfigError as error:
        raise InventoryError(str(error)) from None


def _downloads(where: str, value: Any) -> bool | tuple[str, ...]:
    from launcher.options.checks import downloads

    try:
        return downloads(value, where)
    except ConfigError as error:
        raise InventoryError(str(error)) from None


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise InventoryError(f"{where}: {shown(value)} is not a line of text{hint}")
    return value


def _local_path(where: str, value: Any) -> str:
    return os.path.abspath(os.path.expanduser(_text(where, value)))


def _remote_path(where: str, value: Any) -> str:
    if not _text(where, value).startswith(("/", "~/")):
        raise InventoryError(f"{where}: {shown(value)} is neither absolute nor below '~/'")
    return str(value)


def _python(where: str, value: Any) -> str:
    if not PYTHON.fullmatch(_text(where, value)):
        raise InventoryError(
            f"{where}: {shown(value)} is not a program's path (letters, digits, spaces and _.,/+@%=:~-)"
        )
    return str(value)


def _user(where: str, value: Any) -> str:
    if not USER.fullmatch(_text(where, value)):
        raise InventoryError(f"{where}: {shown(value)} is not a user name")
    return str(value)


def _setup(where: str, value: Any) -> tuple[str, ...]:
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) and "\0" not in line for line in lines):
        raise InventoryError(f"{where}: {shown(value)} is not a shell line or a list of them")
    return tuple(lines)


def _env(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InventoryError(f"{where}: not a mapping of variables")
    found = {}
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise InventoryError(f"{where}: {shown(name)} is not a variable's name")
        # Values may be secrets, so messages leave them out.
        if isinstance(text, bool) or not isinstance(text, (str, int, float)) or "\0" in str(text):
            raise InventoryError(f"{where}: the value of {name} is not text (quote it)")
        found[name] = str(text)
    return found


def _gpus(where: str, value: Any) -> int | Literal["free"] | tuple[int | str, ...]:
    if value == "free":
        return "free"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SLOTS:
        return value
    if isinstance(value, list) and all(
        (isinstance(one, int) and not isinstance(one, bool) and one >= 0)
        or (isinstance(one, str) and _GPU.fullmatch(one))
        for one in value
    ):
        return tuple(value)
    hint = f"; write [{value}] for that one" if isinstance(value, str) and _GPU.fullmatch(value) else ""
    raise InventoryError(f"{where}: {shown(value)} is neither a count nor a list of indices or UUIDs, nor 'free'{hint}")


def _environment(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise InventoryError(f"{where}: {shown(value)} is neither a file of packages nor `auto`, `script` or `none`")
    return value


def _extras(where: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(one, str) and _EXTRA.fullmatch(one) for one in names):
        raise InventoryError(f"{where}: {shown(value)} is not a list of names")
    return tuple(names)


def _fingerprint(where: str, value: Any) -> str:
    if not isinstance(value, str) or not is_fingerprint(value.rstrip("=")):
        raise InventoryError(
            f"{where}: {shown(value)} is not a fingerprint as ssh-keygen -l prints it (SHA256: and 43 characters)"
        )
    return value.rstrip("=")


def _host_keys(where: str, value: Any) -> str:
    if value not in ("strict", "accept-new"):
        raise InventoryError(f"{where}: {shown(value)} is neither 'strict' nor 'accept-new'")
    return str(value)


def _ssh(where: str, value: Any) -> str:
    if value not in ("auto", "fabric", "openssh"):
        raise InventoryError(f"{where}: {shown(value)} is neither 'auto' nor 'fabric' nor 'openssh'")
    return str(value)


#: Name of a field of HostSpec -> what reads its value.
FIELD_CHECKS = {
    "user": _user,
    "port": check_port,
    "slots": check_slots,
    "gpus": _gpus,
    "python": _python,
    "setup": _setup,
    "env": _env,
    "workdir": _remote_path,
    "fingerprint": _fingerprint,
    "identity": _local_path,
    "known_hosts": _local_path,
    "ssh_config": _local_path,
    "host_keys": _host_keys,
    "environment": _environment,
    "extras": _extras,
    "ssh": _ssh,
    "cpus": _cpus,
    "memory": _memory,
    "downloads": _downloads,
    "slurm": slurm_options,
}
#: Fields that have no meaning without SSH.
SSH_ONLY = frozenset({"user", "port", "fingerprint", "identity", "known_hosts", "ssh_config", "host_keys", "ssh"})


def is_fingerprint(text: str) -> bool:
    """Whether text is a SHA256 fingerprint; an MD5 one is not."""
    return _FINGERPRINT.fullmatch(text) is not None
