"""Addresses that may be shown to anybody.

Rule: a user, a password and a query may be secret. An address that has one is not plain.
"""

from __future__ import annotations

from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["plain_address"]

_LOOPBACK = ("127.0.0.1", "::1")


def plain_address(url: str) -> SplitResult | None:
    """Return the parts of an https address without its fragment, or of an http address of a host's own loopback; None for any other."""
    try:
        parts = urlsplit(url)._replace(fragment="")
        is_web = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
        is_valid = bool(parts.hostname) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        return None
    has_dots = bool({".", ".."} & set(unquote(parts.path).split("/")))
    return parts if is_web and is_valid and not has_dots and "@" not in parts.netloc and not parts.query else None
