"""Which packages a zygote uses: those of the job environment, or those that came along in the bundle.

Rule: omegaconf, its antlr runtime, PyYAML and Hydra are one family, all from the environment or all from the bundle and
then first on the path: antlr of another version beside a bundled omegaconf breaks both. Nothing is imported to find out.
"""

import importlib
import os
import re
import sys
from typing import Any, Dict, List, Optional

__all__ = ["choose_packages", "installed_version", "origin_of", "version_of"]

_VERSION = re.compile(r"^__version__(?:\s*:\s*\w+)?\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


def installed_version(package: str) -> Optional[str]:
    """The version of an importable package, read from its files; None where there is none, "" where it cannot be told."""
    origin = origin_of(package)
    return None if origin is None else version_of(os.path.dirname(origin))


def origin_of(package: str) -> Optional[str]:
    """The file from which a package would be imported now; of one that is loaded, too."""
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
    """The version that a package's files name; "" where they name none."""
    for name in ("version.py", "_version.py", "__init__.py"):
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found = _VERSION.search(file.read())
        except OSError:
            continue
        if found is not None:
            return found.group(1)
    return ""


def _minor(version: Optional[str]) -> List[str]:
    return (version or "").split(".")[:2]


def _has_family(controller: Dict[str, Any]) -> bool:
    """The environment has the family, in the controller's major.minor."""
    for package in ("omegaconf", "hydra"):
        wanted = controller.get(package)
        if wanted and _minor(installed_version(package)) != _minor(wanted):
            return False
    return all(installed_version(package) is not None for package in ("omegaconf", "antlr4", "yaml"))


def choose_packages(bundle: str, controller: Dict[str, Any]) -> List[str]:
    """Put what the environment lacks on sys.path.

    Args:
        bundle: the unpacked bundle.
        controller: the controller's versions: `omegaconf`, `hydra` (or None), `cloudpickle`.

    Returns:
        Which came from the bundle: `family`, `cloudpickle`.
    """
    vendor = os.path.join(bundle, "_vendor")
    taken = []
    if not _has_family(controller):
        sys.path.insert(0, os.path.join(vendor, "family"))
        taken.append("family")
    version = installed_version("cloudpickle")
    wanted = controller.get("cloudpickle") or ""
    # What a newer one pickles an older one may not load.
    if not version or _number(version) < _number(wanted) or _minor(version)[:1] != _minor(wanted)[:1]:
        # Imported from there by itself: what else lies beside it is not to be found by accident.
        sys.path.insert(0, vendor)
        try:
            import cloudpickle  # noqa: F401
        finally:
            sys.path.remove(vendor)
        sys.path.append(vendor)
        taken.append("cloudpickle")
    # What a config may name, such as a formatter of logs: after all else.
    sys.path.append(os.path.join(vendor, "also"))
    importlib.invalidate_caches()
    return taken


def _number(version: str) -> List[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
