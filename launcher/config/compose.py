"""Which composition a run has: that of a Hydra app, or that of a plain function.

Rule: Hydra is imported only where it composes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.config.composition import Composition
from launcher.config.plain import PlainComposition

if TYPE_CHECKING:
    from launcher.code.application.application import Application

__all__ = ["compose"]


def compose(
    app: Application,
    overrides: Sequence[str] = (),
    *,
    multirun: bool = False,
    config_path: str | None = None,
    config_name: str | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> Composition:
    """Compose the config of a run.

    Args:
        app: a Hydra app, or a plain function; a plain function for which a config is named is composed as a Hydra app
            whose `config_path` is config_dir, or else the folder of its file.
        overrides: in Hydra's grammar.
        multirun: as Hydra's `--multirun`.
        config_path, config_name, config_dir: as Hydra's options of these names.

    Raises:
        ConfigError: an override cannot be parsed, or the config cannot be composed.
    """
    if app.is_hydra or config_name is not None or config_dir is not None or config_path is not None:
        from launcher.config.hydra import HydraComposition

        return HydraComposition(
            app,
            overrides,
            multirun=multirun,
            config_path=config_path,
            config_name=config_name,
            config_dir=config_dir,
        )
    return PlainComposition(app, overrides, multirun=multirun)
