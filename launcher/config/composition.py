"""Composition: the config of a run, the overrides of its jobs, and each job's config.

Rule: composing, the override grammar and sweeps are Hydra's. They are called lazily, in the same order as `@hydra.main`
calls them. What they raise becomes a ConfigError with Hydra's own message. A job is composed when it is asked for.
`check` checks what can be known earlier: it parses every override, and composes each distinct choice of config groups
once. The derived classes in `launcher.config.hydra` and `launcher.config.plain` say how a config is composed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError
from launcher.util.text.near import names_like

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig
    from typing_extensions import Self

    from launcher.code.application.application import Application

__all__ = ["Composition", "hydra_errors"]

#: How many distinct choices of config groups `check` composes. If there are more, it takes each group's options one by
#: one.
_MAX_CHECKED = 100


class Composition:
    """The configs of a run. A context manager: at its end it restores Hydra's global state.

    Attributes:
        app: the application.
        mode: `RUN` or `MULTIRUN`.
        task_name: Hydra's job name.
        config_name: the name of the primary config, if there is one.
        config: the run's own config, which the run hooks get. Plain data if that is all it is: omegaconf is not imported for it.
        is_hydra: whether its jobs need Hydra and their configs have a full `hydra` node.
    """

    app: Application
    mode: str
    task_name: str
    config_name: str | None
    config: DictConfig | dict[str, Any]
    is_hydra: bool

    def job_overrides(self) -> Iterator[tuple[str, ...]]:
        """Return the overrides of each job, in order. Without a sweep there is one job.

        Raises:
            ConfigError: the basic sweeper cannot make the jobs, as for an interval.
        """
        sweeps = [texts for _, texts in self.sweeps()]
        return iter(itertools.product(*sweeps))

    @property
    def count(self) -> int:
        """How many jobs `job_overrides` has."""
        number = 1
        for _, texts in self.sweeps():
            number *= len(texts)
        return number

    def job_config(self, num: int, overrides: Sequence[str], job_id: str | None = None) -> DictConfig | dict[str, Any]:
        """Compose the config of one job.

        Args:
            num: its number, `hydra.job.num`.
            overrides: its own: an item of `job_overrides`, or what a sweeper made.
            job_id: `hydra.job.id`; by default the number, as in Hydra's basic launcher.

        Raises:
            ConfigError: it cannot be composed.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Compose each distinct choice of config groups once, and look for interpolations that cannot resolve.

        The config of a whole sweep may lack a group that only its jobs choose, and then what refers to that group
        cannot resolve.

        Raises:
            ConfigError: one of them cannot be composed; the message says which.
        """
        from launcher.config.interpolations import unresolved

        if self.mode == "RUN":
            for problem in unresolved(self.config):
                raise ConfigError(f"the config does not resolve: {problem}")
            return
        for overrides in self._distinct_choices():
            try:
                config = self.job_config(0, overrides)
            except ConfigError as error:
                raise ConfigError(f"{error}\n(composed with {' '.join(overrides)})") from error
            if isinstance(config, dict):
                continue
            for problem in unresolved(config):
                with_ = f"with {' '.join(overrides)} " if overrides else ""
                raise ConfigError(f"{with_}the config does not resolve: {problem}")

    def close(self) -> None:
        """Restore Hydra's global state. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- sweeps ------------------------------------------------------------------------------------------------------

    def swept(self) -> list[Override]:
        """Return the parsed overrides of the run, those of the sweep among them."""
        raise NotImplementedError

    def is_group(self, override: Override) -> bool:
        """Whether it chooses an option of a config group."""
        raise NotImplementedError

    def sweeps(self, *, only_discrete: bool = False) -> list[tuple[Override, list[str]]]:
        """Return for each key the texts that its jobs get, as in BasicSweeper: the last override of a key counts. Only
        these lists are kept. Jobs are their product, made one by one.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        found: dict[str, tuple[Override, list[str]]] = {}
        with hydra_errors():
            for override in self.swept():
                if only_discrete and override.is_sweep_override() and not override.is_discrete_sweep():
                    continue
                ((*jobs,),) = BasicSweeper.split_arguments([override], None)
                found[override.get_key_element()] = (override, [job[0] for job in jobs])
        return list(found.values())

    def _distinct_choices(self) -> Iterator[tuple[str, ...]]:
        """Yield overrides of jobs that together make each choice of config groups once."""
        # A sweeper other than the basic one may make more of an override. Its choices are checked all the same.
        sweeps = self.sweeps(only_discrete=True)
        if any(not texts for _, texts in sweeps):
            return
        options = [texts if self.is_group(override) else texts[:1] for override, texts in sweeps]
        number = 1
        for texts in options:
            number *= len(texts)
        if number <= _MAX_CHECKED:
            yield from itertools.product(*options)
            return
        first = [texts[0] for texts in options]
        yield tuple(first)
        for index, texts in enumerate(options):
            for text in texts[1:]:
                yield (*first[:index], text, *first[index + 1 :])


# -- errors --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hydra_errors(*more: type[Exception]) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise into a ConfigError with the lines that Hydra would print."""
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    kinds: tuple[type[Exception], ...] = (
        HydraException,
        OmegaConfBaseException,
        yaml.YAMLError,
        OSError,
        ValueError,
        TypeError,
        *more,
    )
    try:
        yield
    except ConfigError:
        raise
    except kinds as error:
        # Hydra means its own command line. `launcher run` has no such option.
        text = str(error).replace("add --multirun to your command line", "use `launcher multirun` instead of `run`")
        lines = [text or type(error).__name__]
        override = getattr(error, "override", None)
        if isinstance(override, str) and override not in lines[0]:
            lines.insert(0, f"Error parsing override '{override}'")
        if isinstance(error.__cause__, OmegaConfBaseException):
            lines.append(str(error.__cause__) + _near(error.__cause__))
        raise ConfigError("\n".join(lines).strip()) from error


def _near(error: Any) -> str:
    """Return the key that may have been meant, if the given key does not exist."""
    keys = getattr(getattr(error, "parent_node", None), "_content", None)
    if not isinstance(keys, dict) or error.key in keys:
        return ""
    near = names_like(str(error.key), [str(key) for key in keys])
    return f"\ndid you mean {near[0]!r}?" if near else ""
