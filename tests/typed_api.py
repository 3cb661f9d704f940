"""The public API as a strictly typed user sees it. Never run: `tests/test_typing.py` has mypy and pyright read it, against what is installed.

Each `assert_type` is a promise. What must be refused stands with the comment that silences it, and a comment that silences nothing
is an error, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import assert_type

import launcher
from remote_agent import Callback as AgentCallback


@dataclass
class Config:
    lr: float


def train(cfg: Any) -> float:
    current = launcher.current_job()
    assert_type(current, launcher.CurrentJob | None)
    if current is not None:
        assert_type(current.output_dir, str)
        assert_type(current.num, int)
    return float(cfg.lr)


def reports(cfg: Any) -> str:
    try:
        launcher.report(step=3, loss=0.5, phase="warm up")
    except launcher.StopRequested as request:
        assert_type(request.step, float | None)
        return f"{request.values['loss']}"
    return "all"


class Report(launcher.Callback):
    """Hooks name the keywords that they want, or none."""

    on_error = "fail"

    def on_run_start(self, config: Any, **kwargs: Any) -> None: ...

    def on_run_end(self, config: Any, job_return: launcher.JobReturn, **kwargs: Any) -> None: ...

    def on_multirun_end(self, config: Any, job_returns: Sequence[launcher.JobReturn], **kwargs: Any) -> None: ...

    def on_job_start(self, config: Any, *, task_function: Any = None, **kwargs: Any) -> None: ...

    def on_job_end(self, config: Any, job_return: launcher.JobReturn, **kwargs: Any) -> None: ...

    def on_job_return(self, config: Any, job_return: launcher.JobReturn, **kwargs: Any) -> None:
        assert_type(job_return.num, int)
        assert_type(job_return.host, str)
        assert_type(job_return.stopped, bool)

    def on_job_report(self, config: Any, job: launcher.Job[Any], step: Any, values: Any, **kwargs: Any) -> None:
        assert_type(job.stop(), bool)
        assert_type(job.reports[-1].step, float | None)
        assert_type(job.reports[-1].at, float)

    def on_host_lost(self, config: Any, host: str, jobs: Any, **kwargs: Any) -> None: ...


class Plain:
    """Any object that has some of the methods is a callback."""

    def on_job_end(self, config: Any, job_return: launcher.JobReturn, **kwargs: Any) -> None: ...


def runs_one() -> None:
    returned = launcher.run(train, Config(0.1), host="gpu1", callbacks=[Report(), Plain()], timeout="30m", live=True)
    assert_type(returned, launcher.JobReturn)
    assert_type(returned.return_value, Any)
    assert_type(returned.duration, float | None)
    assert_type(returned.output_dir, str | None)
    if returned.error is not None:
        assert_type(returned.error, launcher.JobError)
        assert_type(returned.error.kind, str)
        assert_type(returned.error.traceback, str)
    assert_type(launcher.run("my_app:train", {"lr": 1}), launcher.JobReturn)


def runs_many() -> None:
    returns = launcher.multirun(train, [{"lr": 0.1}, {"lr": 0.2}], hosts=["gpu1", "gpu2/2"])
    assert_type(returns[0], launcher.JobReturn)
    assert_type(returns[1:], list[launcher.JobReturn])
    assert_type(len(returns), int)
    assert_type(returns.to_dataframe(), Any)
    for one in returns:
        assert_type(one, launcher.JobReturn)


def submits() -> None:
    options = launcher.LaunchConf(hosts=("gpu1",), live=True)
    with launcher.Session.open(hosts=["gpu1/4"], callbacks=[Report()], options=options) as session:
        assert_type(session, launcher.Session)
        job = session.submit(train, Config(0.1))
        assert_type(job, launcher.Job[float])
        assert_type(session.submit(train, Config(0.1), resources={"gpus": 1, "memory": "8GiB"}), launcher.Job[float])
        assert_type(job.result(), float)
        assert_type(job.result(timeout=3), float)
        assert_type(job.exception(), BaseException | None)
        assert_type(job.job_return(), launcher.JobReturn)
        assert_type(job.done(), bool)
        assert_type(job.num, int)
        assert_type(session.map(train, [Config(0.1)]), Iterator[float])
        for one in session.as_completed([job]):
            assert_type(one, launcher.Job[float])
        for other in session.as_completed():
            assert_type(other, launcher.Job[Any])
        assert_type(session.returns[0], launcher.JobReturn)
    with launcher.Session.resume("last", live=True) as resumed:
        assert_type(resumed.returns[0], launcher.JobReturn)


def is_refused() -> None:
    launcher.multirunn  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
    launcher.run()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    launcher.run(train, Config(0.1), callbacks=Report())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    launcher.multirun(3, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def are_one_class(callback: launcher.Callback) -> AgentCallback:
    return callback


def fails() -> None:
    try:
        launcher.run(train, Config(0.1)).return_value  # noqa: B018
    except launcher.RemoteJobError as error:
        assert_type(error, launcher.RemoteJobError)
    except launcher.LauncherError as error:
        assert_type(error.exit_code, int)
