"""How many threads the libraries of a job start, if that is another number than its zygote's."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from remote_agent.job_process.threads import limit_loaded, without_users
from remote_agent.protocol.constants import THREADS


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What libraries were told that were imported before: numpy's, numexpr's."""
    told: list[int] = []
    monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "numexpr", SimpleNamespace(set_num_threads=told.append))

    def threadpool_limits(limits: int) -> None:
        told.append(limits)

    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_limits=threadpool_limits))
    return told


def test_a_number_that_a_setup_line_set_stays(monkeypatch: pytest.MonkeyPatch):
    """The agent does not know of it. One that the agent set for the run is replaced."""
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    given = {**dict.fromkeys(THREADS, "4"), "CUDA_VISIBLE_DEVICES": "", "GONE": None}
    assert without_users(given, 1) == {name: value for name, value in given.items() if name != "MKL_NUM_THREADS"}
    assert "OMP_NUM_THREADS" not in without_users(given, 0)


def test_libraries_that_are_imported_already_are_told(limited: list[int]):
    """They read their variable when they were imported."""
    limit_loaded({"OMP_NUM_THREADS": "4"})
    assert limited == [4, 4]


def test_nothing_is_told_without_a_number(limited: list[int], monkeypatch: pytest.MonkeyPatch):
    """And nothing can be told without threadpoolctl."""
    limit_loaded({"CUDA_VISIBLE_DEVICES": "GPU-a"})
    assert limited == []
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    limit_loaded({"OMP_NUM_THREADS": "4"})
    assert limited == [4]
