"""The GPUs of a run are given out once."""

from __future__ import annotations

from remote_agent.agent.gpus import Gpus


def test_each_gpu_is_given_to_one_job():
    """In their order. What is given back can be taken again."""
    gpus = Gpus(["a", "b", "c"])
    assert (gpus.take(2), gpus.take(1), gpus.take(1), gpus.take(0)) == (["a", "b"], ["c"], None, [])
    gpus.release(["b"])
    assert (gpus.count, gpus.take(1)) == (3, ["b"])


def test_gpus_of_jobs_that_run_already_are_taken():
    """An agent that begins anew leaves them what they have, and gives back only what is its own."""
    gpus = Gpus(["a", "b"])
    gpus.hold(["a", "of another list"])
    assert gpus.take(1) == ["b"]
    gpus.release(["a", "of another list"])
    assert (gpus.take(1), gpus.take(1)) == (["a"], None)
