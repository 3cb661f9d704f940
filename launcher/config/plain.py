"""The configs of a plain function's run, built from its overrides.

Rule: a plain function needs no Hydra on the host. Only Hydra's override grammar is used, on the controller, and only where an
override needs a parser. Otherwise its config is plain data, for which omegaconf is not imported before the host has its command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from launcher.config.composition import Composition, hydra_errors
from launcher.config.plain_overrides import read_plainly, written_plainly
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

    from launcher.code.application.application import Application

__all__ = ["PlainComposition"]


class PlainComposition(Composition):
    """The configs of a plain function's run, built only from its overrides.

    `a=1`, `+a=1` and `++a=1` all set a key; `~a` removes what an earlier override set. Of `hydra.*`, only
    `hydra.callbacks.NAME._target_=...` has a meaning here.
    """

    is_hydra = False

    def __init__(self, app: Application, overrides: Sequence[str] = (), *, multirun: bool = False) -> None:
        self.app = app
        self.mode = "MULTIRUN" if multirun else "RUN"
        self.task_name = app.name
        self.config_name = None
        self._given = tuple(overrides)
        plain = read_plainly(overrides)
        #: None: the overrides need no parser.
        self._parsed: list[Override] | None = None
        if plain is not None:
            self.config = _config_of(plain)
            return
        self._parsed = _parse(overrides, is_multirun=multirun)
        for override in self._parsed:
            key = override.key_or_group
            if not key:
                raise ConfigError(f"{override.input_line}: there is no key before the =")
            if key == "hydra" or (key.startswith(("hydra.", "hydra/")) and not key.startswith("hydra.callbacks")):
                raise ConfigError(
                    f"{override.input_line}: {key} has no meaning for a plain function, which has only hydra.callbacks "
                    "of Hydra's config (for the rest, decorate it with @hydra.main, or name a config)"
                )
        self.config = self._build([one for one in self._parsed if not one.is_sweep_override()])

    def job_config(self, num: int, overrides: Sequence[str], job_id: str | None = None) -> DictConfig | dict[str, Any]:
        """Compose the config of one job."""
        plain = read_plainly(overrides)
        if plain is not None:
            return _config_of(plain)
        return self._build(_parse(overrides, is_multirun=False))

    def check(self) -> None:
        """See `Composition.check`. What needs no parser has neither groups nor interpolations."""
        if self._parsed is not None:
            super().check()

    @staticmethod
    def _build(overrides: list[Override]) -> DictConfig:
        from omegaconf import OmegaConf

        config = OmegaConf.create({})
        if overrides:
            from hydra._internal.config_loader_impl import ConfigLoaderImpl

            with hydra_errors():
                for override in overrides:
                    if override.is_add() and OmegaConf.select(config, override.key_or_group) is not None:
                        raise ConfigError(
                            f"{override.input_line}: {override.key_or_group} is set already; use ++ to change it"
                        )
                    ConfigLoaderImpl._apply_overrides_to_config([override], config)  # noqa: SLF001 - what Hydra does
        return config

    def swept(self) -> list[Override]:
        """Return all overrides that were given."""
        # They are parsed again, because a range is used up when it is read.
        return _parse([str(one.input_line) for one in self._parsed or ()], is_multirun=True)

    def sweeps(self, *, only_discrete: bool = False) -> list[tuple[Override, list[str]]]:
        """Return the sweeps as the basic sweeper does. If no override needs a parser there are none, and Hydra is not imported."""
        return super().sweeps(only_discrete=only_discrete) if self._parsed is not None else []

    def job_overrides(self) -> Iterator[tuple[str, ...]]:
        """Return the overrides of each job, in order."""
        return super().job_overrides() if self._parsed is not None else iter([written_plainly(self._given)])

    def is_group(self, override: Override) -> bool:
        """Return False: there are no config groups."""
        return False


def _config_of(values: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, value in values.items():
        node = config
        *above, last = key.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def _parse(lines: Sequence[str], *, is_multirun: bool) -> list[Override]:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    with hydra_errors():
        parsed = OverridesParser.create().parse_overrides(list(lines))
        mode = RunMode.MULTIRUN if is_multirun else RunMode.RUN
        ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
    return parsed
