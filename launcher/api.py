"""run() and multirun(): a whole run in one call.

Rule: connections to the hosts are started first; meanwhile the run is checked and what it needs is imported. `launcher.transports.early_connections`
says what a host may see before the checks are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.errors import ConfigError, UsageError
from launcher.hosts.inventory import host_list
from launcher.options import LaunchConf, options_of
from launcher.transports.early_connections import EarlyConnections
from launcher.util.text.quoting import shown
from remote_agent.job import JobReturn

if TYPE_CHECKING:
    from launcher.results.job_returns import JobReturns
    from launcher.session.session import Observer

__all__ = ["multirun", "run"]


def run(
    task: Callable[[Any], Any] | str,
    config: Any = None,
    *,
    host: Any = None,
    callbacks: Iterable[Any] = (),
    overrides: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    options: LaunchConf | None = None,
    observers: Sequence[Observer] = (),
    **kw: Any,
) -> JobReturn:
    """Run one job, in RUN mode: `on_run_start`, the job on the host, `on_run_end`; returns its JobReturn.

    A job that fails does not raise here; reading `return_value` does.

    Args:
        task: a callable of one argument, or `module:function`.
        config: a dict, dataclass instance or DictConfig; the task gets a DictConfig.
        host: the host that runs it; None runs it here, over the local transport.
        callbacks: Callback objects, after those of `config.hydra.callbacks`.
        folder: the run's local folder, which is the job's output directory; default `outputs/<date>/<time>`.
        kw: any field of LaunchConf.

    Raises:
        UsageError: an argument is wrong; nothing was sent.
        RunInterrupted: Ctrl-C or SIGTERM; the hooks have fired.
    """
    _check_given(task)
    hosts = None if host is None else [host]
    if "hosts" in kw:
        # A field of the options, too, whose default is that there are none.
        kw["hosts"] = host_list(kw["hosts"]) or []
    options = options_of(options, kw)
    with EarlyConnections.begin(hosts, options) as early:
        from launcher.session.session import Session, SessionConf, live_of
        from launcher.setup.kinds.run_setup import RunSetup

        overrides = _texts_of_overrides(overrides)
        setup = RunSetup.make("RUN", task, [config], hosts=hosts, callbacks=callbacks, folder=folder, options=options)
        with Session(setup, SessionConf(observers, early=early, live=live_of("RUN", options))) as session:
            session.drive([(config, overrides)], task)
    return session.returns[0]


def multirun(
    task: Callable[[Any], Any] | str,
    configs: Iterable[Any],
    *,
    hosts: Sequence[Any] | None = None,
    callbacks: Iterable[Any] = (),
    overrides: Sequence[Sequence[str]] | None = None,
    folder: str | os.PathLike[str] | None = None,
    options: LaunchConf | None = None,
    observers: Sequence[Observer] = (),
    **kw: Any,
) -> JobReturns:
    """Run a job per config, in MULTIRUN mode; returns their JobReturns in the order of configs.

    Jobs that fail do not raise here; reading their `return_value` does.

    Args:
        configs: any iterable; a config is read when there is room for its job, so it may be long.
        hosts: the hosts, e.g. `["gpu1", "user@gpu2:2222/4"]`, or a single one; None runs here, over the local transport.
        folder: the run's local folder, default `multirun/<date>/<time>`; job N's output is in `<folder>/N`.

    Raises:
        UsageError: an argument is wrong; nothing was sent.
        RunInterrupted: Ctrl-C or SIGTERM; finished jobs were collected and the hooks have fired.
    """
    _check_given(task)
    hosts = host_list(hosts)
    _check_several(configs)
    _check_overrides(overrides, configs)
    options = options_of(options, kw)
    with EarlyConnections.begin(hosts, options) as early:
        from launcher.session.session import Session, SessionConf, live_of
        from launcher.setup.kinds.run_setup import RunSetup

        if options.continue_sweep:
            # All of them are compared with those of earlier runs before the first one runs.
            configs = list(configs)
        setup = RunSetup.make(
            "MULTIRUN", task, configs, hosts=hosts, callbacks=callbacks, folder=folder, options=options
        )
        if options.continue_sweep or options.same_code:
            from launcher.setup.earlier import continued

            setup = continued(setup, _paired(setup.configs, overrides), task)
        with Session(setup, SessionConf(observers, early=early, live=live_of("MULTIRUN", options))) as session:
            session.drive(_paired(setup.configs, overrides), task)
    return session.returns


def _check_given(task: Any) -> None:
    """Refuse a missing task. Only a Session may have none: its first job brings one."""
    if task is None:
        raise UsageError("the task is None; give a function of one config, or its name as module:function")


def _texts_of_overrides(overrides: Any) -> tuple[str, ...]:
    """The overrides of one job, as they are shown with it.

    Raises:
        ConfigError: they are not a list of texts. A single text is not a list of its letters.
    """
    values = tuple(overrides) if isinstance(overrides, Iterable) and not isinstance(overrides, (str, bytes)) else None
    if values is None or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"overrides: {shown(overrides)} is not a list of texts such as ['lr=0.1']")
    return values


def _check_several(configs: Any) -> None:
    """Refuse what is not a list of configs. A mapping is refused too, because iterating it gives its keys."""
    if isinstance(configs, (Mapping, str, bytes)) or not isinstance(configs, Iterable):
        raise ConfigError(
            f"configs: {type(configs).__name__} is not a list of configs; use launcher.run for a single config"
        )


def _check_overrides(overrides: Any, configs: Any) -> None:
    """Refuse overrides that are not one list of texts for each config, if the number of configs is known."""
    if overrides is None:
        return
    if not isinstance(overrides, Sequence) or isinstance(overrides, (str, bytes)):
        raise ConfigError(f"overrides: {shown(overrides)} is not a list that has a list of texts for each config")
    for one in overrides:
        if (
            not isinstance(one, Sequence)
            or isinstance(one, (str, bytes))
            or not all(isinstance(text, str) for text in one)
        ):
            raise ConfigError(f"overrides: {shown(one)} is not a list of texts such as ['lr=0.1']")
    if isinstance(configs, (list, tuple)) and len(overrides) != len(configs):
        raise ConfigError(
            f"overrides: {len(overrides)} given for {len(configs)} configs; give one list for each config"
        )


def _paired(configs: Iterable[Any], overrides: Sequence[Sequence[str]] | None) -> Iterable[tuple[Any, Sequence[str]]]:
    pairs = ((config, overrides[index] if overrides is not None else ()) for index, config in enumerate(configs))
    return list(pairs) if isinstance(configs, (list, tuple)) else pairs
