"""Chooses the packages that a zygote uses: those of the job environment, or those in the bundle.

Rule: omegaconf, its antlr runtime, PyYAML and Hydra are one family. All come from the environment, or all come from the
bundle and are first on the path, because another version of antlr breaks a bundled omegaconf. From 2.4 on, omegaconf
has its own copy of antlr's runtime and needs no other. Nothing is imported to decide this.
"""

import importlib
import os
import sys
from typing import List, Optional

from remote_agent.protocol.specs.zygote import ControllerFacts
from remote_agent.shared.versions import family_of, installed_version, numbers_of, origin_of

__all__ = [
    "TooOldPython",
    "choose_packages",
]


class TooOldPython(RuntimeError):
    """The bundle's packages do not run under the jobs' Python."""


def _minor(version: Optional[str]) -> List[str]:
    return (version or "").split(".")[:2]


def _has_family(controller: ControllerFacts) -> bool:
    """Whether the environment has the family, in the controller's major.minor version."""
    for package, wanted in (("omegaconf", controller.omegaconf), ("hydra", controller.hydra)):
        if wanted and _minor(installed_version(package)) != _minor(wanted):
            return False
    omegaconf = origin_of("omegaconf")
    if omegaconf is None:
        return False
    others = [package for package in family_of(os.path.dirname(omegaconf)) if package != "hydra"]
    return all(installed_version(package) is not None for package in others)


def choose_packages(bundle: str, controller: ControllerFacts) -> List[str]:
    """Put the packages that the environment lacks on sys.path.

    Args:
        bundle: the unpacked bundle.

    Returns:
        Which of `family` and `cloudpickle` come from the bundle.

    Raises:
        TooOldPython: the family must come from the bundle, but does not run under this Python.
    """
    vendor = os.path.join(bundle, "_vendor")
    taken = []
    if not _has_family(controller):
        oldest = tuple(controller.family_python)
        if sys.version_info[:2] < oldest:
            raise TooOldPython(
                "the controller's OmegaConf {} needs Python {}.{} or later, but jobs on this host run under {}.{} "
                "({}): choose a newer Python with --python, or install omegaconf<2.4 where the launcher runs".format(
                    controller.omegaconf, *oldest, *sys.version_info[:2], sys.executable
                )
            )
        sys.path.insert(0, os.path.join(vendor, "family"))
        taken.append("family")
    version = installed_version("cloudpickle")
    wanted = controller.cloudpickle or ""
    # An older cloudpickle may not load what a newer one has pickled.
    if not version or numbers_of(version) < numbers_of(wanted) or _minor(version)[:1] != _minor(wanted)[:1]:
        # The folder is on the path only for this import, so that nothing else in it is found by accident.
        sys.path.insert(0, vendor)
        try:
            import cloudpickle  # noqa: F401
        finally:
            sys.path.remove(vendor)
        sys.path.append(vendor)
        taken.append("cloudpickle")
    # Packages that a config may name, such as a formatter of logs. They come last.
    sys.path.append(os.path.join(vendor, "also"))
    importlib.invalidate_caches()
    return taken
