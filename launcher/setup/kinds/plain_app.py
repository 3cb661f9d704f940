"""The setup of a run of a plain function that the command line names.

Rule: overrides build its config, when the job's turn comes. It never imports Hydra's plugins.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.code.application.task import Script
from launcher.code.files.snapshot import Snapshot
from launcher.config.lazy import LazyConfig, checked_config
from launcher.engine.requests import QueuedJob
from launcher.hosts.inventory import host_specs
from launcher.options import LaunchConf
from launcher.runs.index import new_run_id
from launcher.setup.callbacks import callback_nodes
from launcher.setup.folders import folder_for
from launcher.setup.jobs.resources import RESOURCES, own_resources, resources_of
from launcher.setup.kinds.run_setup import RunSetup
from remote_agent.callbacks.composite import Callbacks

if TYPE_CHECKING:
    from launcher.code.application.application import Application
    from launcher.config.composition import Composition

__all__ = ["PlainAppSetup", "read_warnings", "script_of_app"]


def script_of_app(app: Application) -> Script | None:
    """Return the application as the script that Python would have been started with."""
    if app.file is None:
        return None
    return Script(app.file, app.is_module or os.path.isabs(os.path.expanduser(app.named)), app.is_module)


def read_warnings(app: Application) -> tuple[tuple[str, str], ...]:
    """What to say of an application that was read from its text; nothing if it was imported."""
    if app.failure is None:
        return ()
    also = " and so were the arguments of @hydra.main," if app.is_hydra else ""
    return (("code", f"{app.failure}; its function was read from its text,{also} and hosts import it"),)


@dataclasses.dataclass(frozen=True, eq=False)
class PlainAppSetup(RunSetup):
    """A run of a plain function. Overrides build its config."""

    kind: ClassVar[str] = "plain_app"

    composition: Composition | None = None
    #: The overrides as they were given.
    given: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        app: Application,
        composition: Composition,
        composite: Callbacks,
        options: LaunchConf,
        folder: str | None,
        overrides: Sequence[str],
        taken: Snapshot | None = None,
    ) -> PlainAppSetup:
        """Check what was given.

        Args:
            taken: the snapshot of its project, if there is one already.

        Raises:
            UsageError: naming what is wrong.
        """
        mode = composition.mode
        where, naming = folder_for(mode, folder)
        setup = cls(
            mode=mode,
            run_id=new_run_id(),
            folder=where,
            naming=naming,
            hosts=tuple(host_specs(None, options)),
            options=options,
            callbacks=composite,
            task=app.reference,
            task_name=app.name,
            configs=(),
            root=app.project,
            main_module=app.module_name,
            script=script_of_app(app),
            given=tuple(overrides),
            callback_specs=callback_nodes(composition.config),
            composition=composition,
            warnings=read_warnings(app),
        )
        return dataclasses.replace(
            setup, root_config=checked_config(composition.config, setup.node(None, ()))
        ).with_code(taken)

    def job(self, num: int, task: Any, config: Any, overrides: Sequence[str]) -> QueuedJob:
        """Compose the job with these overrides now.

        In RUN mode it has the changes that `on_run_start` made to its config.
        """
        assert self.composition is not None
        if self.mode == "RUN":
            return super().job(num, task, _own_part(self.root_config), overrides)
        composed = self.composition.job_config(num, overrides)
        made = super().job(num, task, _own_part(composed), overrides)
        try:
            own = own_resources(_resources(composed), _resources(self.composition.config))
            made.spec = made.spec._replace(needs=self.needs_of(own, RESOURCES))
        except Exception as error:  # noqa: BLE001 - a resolver in the config may raise anything
            made.failure = ("config", str(error))
        return made

    def arguments(self) -> list[str]:
        """Return the overrides, as in `python my_app.py OVERRIDES`."""
        return list(self.given)


def _resources(config: Any) -> Any:
    """Return what the `hydra` node of a config says that a job needs."""
    if isinstance(config, LazyConfig):
        config = config.made if config.unread is None else {}
    return {} if isinstance(config, dict) else resources_of(config)


def _own_part(config: Any) -> Any:
    """Return the application's part of a config."""
    if isinstance(config, LazyConfig):
        if config.unread is not None:
            return config.unread
        config = config.made
    if isinstance(config, dict):
        return config  # it was composed without the `hydra` node
    from omegaconf import OmegaConf

    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
