"""What an allocation starts before its agent is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent.zygotes.spare import spare_of
from remote_agent.slurm.allocation import allocation, beginning
from remote_agent.slurm.pool.incarnations import FOLDER
from tests.specs import zygote_spec

OPTIONS = {"part": '{"gpus": 0, "cpus": 3, "memory": 0}', "spare": "/usr/bin/python3"}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What was begun, in order, by an allocation that is Slurm job 22."""
    monkeypatch.setenv("SLURM_JOB_ID", "22")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(beginning, "start_spare", lambda *given: found.append(("spare", *given)))
    monkeypatch.setattr(allocation, "serve_allocation", lambda *given: found.append(("agent", *given)) or 0)
    return found


def begin(workdir: Path, **options: str) -> None:
    """Begin an allocation there."""
    assert beginning.begin_allocation("r1", "h", str(workdir), "/bundle", options) == 0


def test_the_python_of_the_jobs_comes_before_the_agent(begun, tmp_path: Path):
    """In the folder of this start of the Slurm job, and with as many threads as a job has CPUs."""
    begin(tmp_path, **OPTIONS)
    (spare, python, bundle, own, _, threads), agent = begun
    assert (spare, python, bundle, threads) == ("spare", "/usr/bin/python3", "/bundle", 3)
    assert own.endswith(f"/{FOLDER}/22.0")
    assert Path(own).is_dir()
    assert agent[0] == "agent"
    assert agent[5] == "22.0"


def test_without_the_option_none_is_started(begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Shell lines or variables come before the jobs' Python, or nobody has said which one it is."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    begin(tmp_path)
    ((agent, *given),) = begun
    assert (agent, given[4], given[6]) == ("agent", "22.2", None)


def test_an_id_that_slurm_gives_twice_is_a_later_start(begun, tmp_path: Path):
    """Slurm's controller may have lost what it knew. The log of the one before stays as it is."""
    begin(tmp_path, **OPTIONS)
    own = Path(begun[0][3])
    (own / "log").write_text("of another job")
    begin(tmp_path, **OPTIONS)
    assert [given[5] for given in begun if given[0] == "agent"] == ["22.0", "22.1"]
    assert begun[2][3] == str(own.with_name("22.1"))


@pytest.mark.parametrize(
    ("more", "chosen"),
    [
        ({}, ""),
        ({"python": "/opt/python"}, "/opt/python"),
        ({"python": "/envs/k/bin/python", "environment": True, "code": {"environment": {"key": "k"}}}, "environment:k"),
        ({"setup": ["module load x"]}, None),
        ({"environ": {"SECRET": "1"}}, None),
        ({"isolation": "spawn"}, None),
    ],
)
def test_which_python_allocations_start(more: dict[str, Any], chosen: str | None):
    """None where shell lines or variables come before it: it is started without them, and variables may be secrets."""
    assert spare_of(zygote_spec(**more)) == chosen
