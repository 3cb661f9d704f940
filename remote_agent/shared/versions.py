"""Reads versions of packages, and which of them belong together, from their files. Nothing is imported."""

import os
import re
import sys
from typing import Any, List, Optional

__all__ = ["family_of", "installed_version", "origin_of", "version_note", "version_of"]

#: The first release whose `instantiate` refuses targets that run an attacker's code.
_FIXED_HYDRA = [1, 3, 7]


_VERSION = re.compile(r"^__version__(?:\s*:\s*\w+)?\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


def version_note(hydra: str) -> str:
    """Return a note for the user about a release of Hydra; empty if there is none."""
    if numbers_of(hydra) >= _FIXED_HYDRA:
        return ""
    return (
        "Hydra {} lacks the checks of `_target_` that came with 1.3.7: compose only configs that you trust with it, or "
        "install hydra-core>=1.3.7"
    ).format(hydra)


def family_of(omegaconf: str) -> List[str]:
    """Return the packages that belong together, if omegaconf is in that folder and Hydra is used."""
    has_antlr = os.path.isdir(os.path.join(omegaconf, "vendor", "antlr4"))
    return ["hydra", "omegaconf", "yaml"] if has_antlr else ["antlr4", "hydra", "omegaconf", "yaml"]


def installed_version(package: str) -> Optional[str]:
    """Return the version of an importable package, from its files; None if there is no package, "" if unknown."""
    origin = origin_of(package)
    return None if origin is None else version_of(os.path.dirname(origin))


def origin_of(package: str) -> Optional[str]:
    """Return the file from which a package would be imported now, or has been imported."""
    for finder in sys.meta_path:
        try:
            spec: Any = finder.find_spec(package, None) if hasattr(finder, "find_spec") else None
        except (ImportError, ValueError):
            continue
        if spec is not None:
            origin: Optional[str] = spec.origin
            return origin
    return None


def version_of(folder: str) -> str:
    """Return the version in a package's files; "" if they have none."""
    for name in ("version.py", "_version.py", "__init__.py"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found = _VERSION.search(file.read())
        except OSError:
            continue
        if found is not None:
            return found.group(1)
    return ""


def numbers_of(version: str) -> List[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
