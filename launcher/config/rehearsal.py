"""What composing a first config of a Hydra app does that is the same for every app, done ahead.

Rule: a config is composed afterwards exactly as it would have been. Nothing of an app, and no plugin of anyone else, is imported. Both parsers fill tables
that say how a text is read, whoever wrote it, and are asked for nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

__all__ = ["rehearse"]

#: One of each kind that Hydra's own configs, and most command lines, have.
_INTERPOLATIONS = (
    "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}",
    "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}",
    "${hydra.job.num}",
    "${hydra.runtime.output_dir}/${hydra.job.name}.log",
    "${oc.env:NAME,text}",
    "${..name}",
)
_OVERRIDES = (
    "name=1",
    "name.part=0.5e-3",
    "group/part=some_name",
    "group@package=name",
    "+name='some text'",
    "++name=/tmp/some_folder",
    "~name",
    "name=[1,text,null]",
    "name={part:true}",
    "name=1,2,3",
    "name=range(1,5)",
    "name=choice(some,text)",
    "hydra.run.dir=some/folder",
)


def rehearse() -> None:
    """Import Hydra's own plugins and ours, and have both parsers read each kind of text once."""
    import hydra._internal.core_plugins as own
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import grammar_parser

    for module in pkgutil.iter_modules(own.__path__, f"{own.__name__}."):
        importlib.import_module(module.name)
    importlib.import_module("hydra_plugins.hydra_remote_launcher.remote_launcher")
    for text in _INTERPOLATIONS:
        grammar_parser.parse(text)
    OverridesParser.create().parse_overrides(list(_OVERRIDES))
