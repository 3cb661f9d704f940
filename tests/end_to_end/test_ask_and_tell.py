"""The example of a search by ask and tell: no slot waits for other jobs."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events

_EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "ask_and_tell.py"
_SLOTS = 4
_TRIALS = 16
#: A defect shows as a wait that does not end.
_PATIENCE = 120.0


def _search() -> Any:
    spec = importlib.util.spec_from_file_location("ask_and_tell", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.search


class _Slots:
    """Counts the jobs that run, by events."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running: set[int] = set()
        self.ended: set[int] = set()
        #: How many slots had no job at the moments before a job was let go on.
        self.idle: list[int] = []

    def __call__(self, event: events.Event) -> None:
        with self.changed:
            if isinstance(event, events.AttemptStarted):
                self.running.add(event.num)
            elif isinstance(event, events.AttemptEnded):
                self.running.discard(event.num)
                self.ended.add(event.num)
            self.changed.notify_all()


@pytest.mark.slow
@pytest.mark.timeout(4 * _PATIENCE)
def test_every_slot_has_a_job_while_one_job_takes_as_long_as_all_others(tmp_path: Path) -> None:
    """The first job goes on until all others have ended. Each time that another job ends, all four slots have a job again, until no job is
    left that could start.
    """
    import optuna

    gates = tmp_path / "gates"
    gates.mkdir()
    for num in range(_TRIALS):
        os.mkfifo(gates / str(num))

    def task(cfg: Any) -> float:
        with open(os.path.join(cfg.gates, str(launcher.current_job().num)), "rb") as gate:
            gate.read()
        return float(cfg.x)

    def suggest(trial: Any) -> dict[str, Any]:
        return {"x": trial.suggest_float("x", 0.0, 1.0), "gates": str(gates)}

    slots = _Slots()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    with launcher.Session.open(hosts=[f"local/{_SLOTS}"], folder=tmp_path / "out", observers=[slots]) as session:
        arguments = (session, study, task, suggest, _TRIALS, _SLOTS)
        thread = threading.Thread(target=_search(), args=arguments, daemon=True)
        thread.start()
        for done in range(_TRIALS):
            wanted = min(_SLOTS, _TRIALS - done)
            with slots.changed:
                came = slots.changed.wait_for(
                    lambda done=done, wanted=wanted: len(slots.ended) == done and len(slots.running) == wanted,
                    _PATIENCE,
                )
                slots.idle.append(wanted - len(slots.running))
                num = max(slots.running)
            assert came, f"after {done} jobs, {slots.idle[-1]} slots have no job"
            (gates / str(num)).write_bytes(b"")
        thread.join(_PATIENCE)
        assert not thread.is_alive()
    assert slots.idle == [0] * _TRIALS
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * _TRIALS
