"""Small replacements for packages that the bundle's copy of Hydra imports.

Rule: if the job's environment has the real package, that is used. A replacement never hides a package.

Hydra always imports `packaging`, and on Python 3.8 also `importlib_resources`. A bare host has neither, and current
releases of `packaging` do not run on 3.8. So the bundle's Hydra falls back to its own modules in two places.
"""

from __future__ import annotations

__all__ = ["ADJUSTMENTS", "STAND_INS"]

_VERSION = '''\
"""What Hydra uses of `packaging.version`, for a host without it."""

import re
from functools import total_ordering


@total_ordering
class Version:
    """A release number such as 1.3; suffixes of pre-releases are ignored, as Hydra compares major.minor alone."""

    def __init__(self, version):
        match = re.match(r"\\s*v?(\\d+(?:\\.\\d+)*)", version)
        if match is None:
            raise ValueError("Invalid version: {!r}".format(version))
        self.release = tuple(int(part) for part in match.group(1).split("."))

    def _key(self):
        release = self.release
        while len(release) > 1 and release[-1] == 0:
            release = release[:-1]
        return release

    @property
    def major(self):
        return self.release[0]

    @property
    def minor(self):
        return self.release[1] if len(self.release) > 1 else 0

    def __eq__(self, other):
        return self._key() == other._key() if isinstance(other, Version) else NotImplemented

    def __lt__(self, other):
        return self._key() < other._key() if isinstance(other, Version) else NotImplemented

    def __hash__(self):
        return hash(self._key())

    def __str__(self):
        return ".".join(str(part) for part in self.release)

    def __repr__(self):
        return "<Version({!r})>".format(str(self))
'''
_RESOURCES = '''\
"""What Hydra uses of `importlib_resources`, for Python 3.8 without it."""

import importlib
import pathlib


def files(package):
    """The folder of a package that lies in a folder."""
    locations = importlib.import_module(package).__spec__.submodule_search_locations
    if not locations:
        raise TypeError("{!r} is not a package".format(package))
    return pathlib.Path(list(locations)[0])
'''
#: Path in the bundle -> (original text, its replacement). A release with another text is left unchanged.
ADJUSTMENTS = {
    "_vendor/family/hydra/version.py": (
        b"\nfrom packaging.version import Version\n",
        (
            b"\ntry:\n    from packaging.version import Version\n"
            b"except ImportError:\n    from hydra._bundled_version import Version\n"
        ),
    ),
    "_vendor/family/hydra/_internal/core_plugins/importlib_resources_config_source.py": (
        b"\n    import importlib_resources as resources\n",
        (
            b"\n    try:\n        import importlib_resources as resources\n"
            b"    except ImportError:\n        from hydra import _bundled_resources as resources\n"
        ),
    ),
}
#: Path in the bundle -> content.
STAND_INS = {
    "_vendor/family/hydra/_bundled_version.py": _VERSION.encode(),
    "_vendor/family/hydra/_bundled_resources.py": _RESOURCES.encode(),
}
