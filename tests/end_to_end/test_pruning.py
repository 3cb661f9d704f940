"""The example of pruning: a search over SSH stops bad jobs early on several hosts, and no job waits for another one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec

_EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "pruning"
_TRIALS = 10


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `search` of a copy of the example."""
    folder = shutil.copytree(_EXAMPLE, tmp_path / "pruning")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    import search  # type: ignore[import-not-found]

    yield search
    for name in ("search", "my_app"):
        sys.modules.pop(name, None)


def _suggest(numbers: list[float]) -> Any:
    """A sampler that gives these numbers, one for each trial."""
    import optuna

    class Fixed(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> float:
            return numbers[trial.number]

    return Fixed()


def _search(example: Any, hosts: list[Any], folder: Path) -> tuple[Any, list[events.Event]]:
    """A search whose trials are good at first, and then bad: a median of the good ones prunes each of the others."""
    import optuna

    happened: list[events.Event] = []
    lrs = [0.3 + 0.01 * number for number in range(4)] + [1.0] * (_TRIALS - 4)
    # None of the good ones may be pruned, so that the others have a median.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    study = optuna.create_study(sampler=_suggest(lrs), pruner=pruner)
    prune = example.Prune()
    with launcher.Session.open(
        hosts=hosts, folder=folder, callbacks=[prune], observers=[happened.append], python=sys.executable
    ) as session:
        example.search(session, prune, study, trials=4, slots=2, steps=6, seconds=0.01)
        # A bad trial could go on for minutes, and ends when it is pruned.
        example.search(session, prune, study, trials=_TRIALS - 4, slots=2, steps=3000, seconds=0.1)
    return study, happened


def _check(study: Any, happened: list[events.Event]) -> None:
    """Each bad trial was pruned, with what it had reported; each good one has its value; no job ran twice, and each host had some."""
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"] * (_TRIALS - 4)
    for trial in study.trials[4:]:
        assert 2 <= trial.last_step < 2999
        assert trial.value == trial.intermediate_values[trial.last_step]
    started = [event.num for event in happened if isinstance(event, events.AttemptStarted)]
    assert sorted(started) == list(range(_TRIALS))
    returned = [event for event in happened if isinstance(event, events.JobReturned)]
    assert [event.stopped for event in sorted(returned, key=lambda event: event.num)] == [False] * 4 + [True] * (
        _TRIALS - 4
    )
    assert not [event for event in happened if isinstance(event, events.Warned)]


@pytest.mark.slow
def test_a_search_here_prunes_its_bad_trials(example: Any, tmp_path: Path) -> None:
    """With as many slots as it likes."""
    _check(*_search(example, ["local/2"], tmp_path / "out"))


@pytest.mark.slow
def test_a_search_over_ssh_prunes_its_bad_trials_on_two_hosts(example: Any, tmp_path: Path) -> None:
    """Both hosts have trials that are pruned."""
    with DemoServer("gpu1") as one, DemoServer("gpu2") as two:
        hosts = [HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config)) for server in (one, two)]
        study, happened = _search(example, hosts, tmp_path / "out")
    _check(study, happened)
    stopped = {event.host for event in happened if isinstance(event, events.JobReturned) and event.stopped}
    assert stopped == {"gpu1", "gpu2"}
