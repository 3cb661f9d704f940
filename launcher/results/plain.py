"""The plain form of what a host sent: read for commands, which show values of any run.

Rule: nothing is unpickled, and no class of a user's is imported. Bytes are used only after their digest was checked.
"""

from __future__ import annotations

import hashlib
from typing import Any

from launcher.errors import ResultNotDecoded
from launcher.runs.journal_format import StoredResult, StoredValue
from launcher.util.text.terminal_text import clean
from remote_agent.protocol.result_parts import PLAIN
from remote_agent.shared.plain_value import MAX_SMALL

__all__ = ["plain_value", "read_part", "shown_value"]


def plain_value(stored: StoredResult | StoredValue) -> Any:
    """Return a completed job's value from its plain form. Nothing is unpickled or imported for it, so a placeholder names each part
    without a plain form.

    Raises:
        ResultNotDecoded: it has no plain form, or one that is too long or damaged.
    """
    from launcher.serialization.plain_values import read_shown

    name = "plain" if stored.parts.plain is not None else "value"
    if name not in stored.parts.by_name:
        raise ResultNotDecoded("no value came with it")
    if name == "value" and stored.parts.codec != PLAIN:
        raise ResultNotDecoded("a pickle; nothing is known about it until it is decoded")
    size = stored.parts.by_name[name].size
    if size > MAX_SMALL:
        raise ResultNotDecoded(f"its plain form has {size:,} bytes")
    return read_shown(read_part(stored, name))


def shown_value(stored: StoredResult) -> str:
    """Return a completed job's value as a short text; empty if there is none."""
    from launcher.serialization.plain_text import plain_text

    if stored.parts.plain is None and stored.parts.value is None:
        return ""
    try:
        return plain_text(plain_value(stored))
    except ResultNotDecoded as error:
        return f"({clean(error)})"


def read_part(stored: StoredResult | StoredValue, name: str) -> bytes:
    """Read the bytes of one part of a result, and check them against the digest from its host.

    Raises:
        ResultNotDecoded: it is truncated or altered, or its file is gone.
    """
    offset, size, sha256 = stored.parts.by_name[name]
    if stored.file is None:
        data = stored.payload[offset : offset + size]
    else:
        try:
            with open(stored.file, "rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise ResultNotDecoded(f"{name} of job {stored.num}: {stored.file}: {error.strerror}") from None
    if len(data) != size or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
        raise ResultNotDecoded(
            f"{name} of job {stored.num} from {stored.host} was truncated or altered (its digest does not match)"
        )
    return data
