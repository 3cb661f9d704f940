"""What a spare zygote and a warm interpreter import before they know their job, and the check whether that was right.

Rule: this must import exactly what `prepare.prepare` would have imported. If the application has a module with one of
these names, or the packages must come from elsewhere, the process cannot be used, and a new zygote replaces it.
"""

import contextlib
import importlib
import os
import random
import sys
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set

from remote_agent.hydra import state as hydra_state
from remote_agent.job_process.seeds import SeedWatch
from remote_agent.job_process.shutdown import load_stdio
from remote_agent.protocol.specs.zygote import ControllerFacts
from remote_agent.shared.versions import family_of, origin_of, version_of
from remote_agent.zygote.imports.import_watch import ImportWatch
from remote_agent.zygote.imports.packages import choose_packages

__all__ = ["Ahead", "Preloaded", "UnfitSpare", "import_ahead", "preload"]

#: Packages that read a file of this name in the working folder while they are imported.
_READ_THERE = {"matplotlib": "matplotlibrc", "numba": ".numba_config.yaml"}


class UnfitSpare(Exception):
    """The process cannot be used. A zygote must be started that imports everything itself."""


class Ahead(NamedTuple):
    """A part of the application's imports that is done already.

    Attributes:
        environment: the variables before it.
        imported: the packages that the application imports itself.
    """

    watch: ImportWatch
    seeds: SeedWatch
    environment: Dict[str, str]
    imported: Sequence[str]


class Preloaded:
    """What was imported.

    Attributes:
        names: the top-level modules that were loaded by it.
        ahead: a warm interpreter's part of the application's imports.
    """

    def __init__(self, names: FrozenSet[str], ahead: Optional[Ahead] = None) -> None:
        self.names = names
        self.ahead = ahead
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
            names = _names_in(folder)
            suspects |= names & self.names
            if self.ahead is not None and "hydra" in self.names and "hydra_plugins" in names:
                raise UnfitSpare("there are Hydra plugins in {}".format(folder))
        for name in sorted(suspects):
            origin = origin_of(name)
            if origin != getattr(getattr(sys.modules.get(name), "__spec__", None), "origin", None):
                raise UnfitSpare("{} is to be taken from {}".format(name, origin))
        for name, file in _READ_THERE.items():
            if self.ahead is not None and name in self.names and os.path.exists(file):
                raise UnfitSpare("{} reads {} in the jobs' folder".format(name, file))


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


def import_ahead(
    bundle: str, controller: ControllerFacts, modules: Sequence[str], imported: Sequence[str]
) -> Preloaded:
    """Import installed modules as `prepare.prepare` would have them imported by the application.

    Raises:
        Exception: whatever importing them raised; or UnfitSpare, if they change what `prepare.prepare` sets.
    """
    before = set(sys.modules)
    path, environment = list(sys.path), dict(os.environ)
    choose_packages(bundle, controller)
    import cloudpickle  # noqa: F401

    if controller.hydra:
        hydra_state.prepare_hydra()
    import omegaconf  # noqa: F401

    load_stdio()
    random.seed()
    chosen, folder = list(sys.path), os.getcwd()
    with SeedWatch() as seeds, hydra_state.without_start() if controller.hydra else contextlib.nullcontext():
        watch = ImportWatch()
        for name in modules:
            importlib.import_module(name)
    watch.pause()
    if sys.path != chosen or os.getcwd() != folder:
        raise UnfitSpare("an import changes sys.path or the working folder")
    sys.path[:] = path
    names = frozenset(name.partition(".")[0] for name in set(sys.modules) - before)
    return Preloaded(names, Ahead(watch, seeds, environment, imported))
