"""What a spare zygote imports before it knows its job, and the check whether that was right.

Rule: this must import exactly what `prepare.prepare` would have imported. If the application has a module with one of
these names, or the packages must come from elsewhere, the spare cannot be used, and a new zygote replaces it.
"""

import os
import sys
from typing import FrozenSet, List, Set

from remote_agent.job_process.shutdown import load_stdio
from remote_agent.protocol.zygote_spec import ControllerFacts
from remote_agent.shared.versions import family_of, origin_of, version_of
from remote_agent.zygote.packages import choose_packages

__all__ = ["Preloaded", "UnfitSpare", "preload"]


class UnfitSpare(Exception):
    """The spare cannot be used. A zygote must be started that imports everything itself."""


class Preloaded:
    """What was imported.

    Attributes:
        names: the top-level modules that were loaded by it.
    """

    def __init__(self, names: FrozenSet[str]) -> None:
        self.names = names
        omegaconf = os.path.dirname(str(sys.modules["omegaconf"].__file__))
        self._packages = [*(name for name in family_of(omegaconf) if name in sys.modules), "cloudpickle"]

    def check(self, application: List[str]) -> None:
        """Check whether the imports were right. Called when sys.path is as the jobs will have it.

        Args:
            application: the application's folders on sys.path.

        Raises:
            UnfitSpare: something would have been imported from elsewhere.
        """
        suspects = set(self._packages)
        for folder in application:
            if os.path.isfile(folder):
                raise UnfitSpare("an archive is on the path: {}".format(folder))
            suspects |= _names_in(folder) & self.names
        for name in sorted(suspects):
            origin = origin_of(name)
            if origin != getattr(sys.modules[name].__spec__, "origin", None):
                raise UnfitSpare("{} is to be taken from {}".format(name, origin))


def _names_in(folder: str) -> Set[str]:
    """Return what can be imported from a folder; nothing if Python cannot read it either."""
    try:
        return {name.partition(".")[0] for name in os.listdir(folder)}
    except OSError:
        return set()


def preload(bundle: str) -> Preloaded:
    """Import what every job needs, from the same places as a run without the application."""
    before = set(sys.modules)
    path = list(sys.path)
    family = os.path.join(bundle, "_vendor", "family")
    facts = ControllerFacts(
        python=[],
        by_value=False,
        values=[],
        omegaconf=version_of(os.path.join(family, "omegaconf")),
        hydra=None,
        family_python=[],
        cloudpickle=version_of(os.path.join(bundle, "_vendor", "cloudpickle")),
    )
    choose_packages(bundle, facts)
    import cloudpickle  # noqa: F401
    import omegaconf  # noqa: F401

    load_stdio()
    sys.path[:] = path
    return Preloaded(frozenset(name.partition(".")[0] for name in set(sys.modules) - before))
