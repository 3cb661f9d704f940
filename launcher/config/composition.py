"""Composition: the config of a run, the overrides of its jobs, and each job's config.

Rule: composing, the override grammar and sweeps are Hydra's. They are called in the order in which `@hydra.main`
does, lazily, and what they raise becomes a ConfigError with Hydra's own message. A job is composed when it is asked
for; what can be known before is checked by `check`: every override is parsed, and each distinct choice of config groups
is composed once. How a config is composed, the derived classes say: `launcher.config.hydra`, `launcher.config.plain`.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from launcher.code.application import Application
from launcher.config.interpolations import unresolved
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig
    from typing_extensions import Self

__all__ = ["Composition", "hydra_errors"]

#: Distinct choices of config groups that `check` composes; where there are more, each group's options one by one.
_MAX_CHECKED = 100


class Composition:
    """The configs of a run. A context manager: Hydra's global state is given back at its end.

    Attributes:
        app: the application.
        mode: `RUN` or `MULTIRUN`.
        task_name: Hydra's job name.
        config_name: of the primary config, if there is one.
        config: the run's own config, as the run hooks get it.
        is_hydra: its jobs need Hydra, and their configs have a full `hydra` node.
    """

    app: Application
    mode: str
    task_name: str
    config_name: str | None
    config: DictConfig
    is_hydra: bool

    def job_overrides(self) -> Iterator[tuple[str, ...]]:
        """The overrides of each job, in order; one job without any sweep.

        Raises:
            ConfigError: as sweeps over an interval, which the basic sweeper cannot make.
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

    def job_config(self, num: int, overrides: Sequence[str], job_id: str | None = None) -> DictConfig:
        """The config of one job.

        Args:
            num: its number, `hydra.job.num`.
            overrides: its own, one of `job_overrides`, or what a sweeper made.
            job_id: `hydra.job.id`; the number by default, as Hydra's basic launcher has it.

        Raises:
            ConfigError: it cannot be composed.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Compose each distinct choice of config groups once, and look for interpolations that cannot resolve.

        The config of a sweep as a whole may lack a group that only its jobs choose, and what refers to that.

        Raises:
            ConfigError: one cannot be composed; says which.
        """
        if self.mode == "RUN":
            for problem in unresolved(self.config):
                raise ConfigError(f"the config does not resolve: {problem}")
            return
        for overrides in self._distinct_choices():
            try:
                config = self.job_config(0, overrides)
            except ConfigError as error:
                raise ConfigError(f"{error}\n(composed with {' '.join(overrides)})") from error
            for problem in unresolved(config):
                with_ = f"with {' '.join(overrides)} " if overrides else ""
                raise ConfigError(f"{with_}the config does not resolve: {problem}")

    def close(self) -> None:
        """Give Hydra's global state back; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- sweeps ------------------------------------------------------------------------------------------------------

    def swept(self) -> list[Override]:
        """The overrides that jobs differ by, or that all of them share, parsed."""
        raise NotImplementedError

    def is_group(self, override: Override) -> bool:
        """It chooses an option of a config group."""
        raise NotImplementedError

    def sweeps(self, *, only_discrete: bool = False) -> list[tuple[Override, list[str]]]:
        """For each key the texts that its jobs get, as BasicSweeper has them: the last override of a key counts.

        A list of texts per key is all that is kept; jobs are their product, made one by one.
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
        """Overrides of jobs that together make each choice of config groups once."""
        # Another sweeper than the basic one may make more of an override; its choices are looked at all the same.
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
    """What Hydra, OmegaConf and YAML raise becomes a ConfigError with the lines that Hydra would print."""
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
        # Hydra speaks of its own command line; `launcher run` has no such option.
        text = str(error).replace("add --multirun to your command line", "use `launcher multirun` instead of `run`")
        lines = [text or type(error).__name__]
        override = getattr(error, "override", None)
        if isinstance(override, str) and override not in lines[0]:
            lines.insert(0, f"Error parsing override '{override}'")
        if isinstance(error.__cause__, OmegaConfBaseException):
            lines.append(str(error.__cause__) + _near(error.__cause__))
        raise ConfigError("\n".join(lines).strip()) from error


def _near(error: Any) -> str:
    """The key that may have been meant, where there is none of the name that was given."""
    keys = getattr(getattr(error, "parent_node", None), "_content", None)
    if not isinstance(keys, dict) or error.key in keys:
        return ""
    near = difflib.get_close_matches(str(error.key), [str(key) for key in keys], 1)
    return f"\ndid you mean {near[0]!r}?" if near else ""
