"""The controller's hooks: each fires once, in order; and what happens if one raises."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import launcher
from launcher import events
from launcher.agents.connection import AgentConnection
from launcher.errors import RunAborted
from tests.launcher.session.recorded import collect, lines


def test_multirun_fires_every_hook_once_in_order_on_its_side(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """Controller hooks fire here, job hooks in the job's process, with the callback's state from the controller."""
    record = tmp_path / "record"
    returns = launcher.multirun(app.train, [{"x": 1}, {"x": 2}], hosts=hosts, callbacks=[app.Recorder(record)])
    assert [one.return_value["doubled"] for one in returns] == [2, 4]
    seen = lines(record)
    assert seen[0]["hook"] == "on_multirun_start"
    assert seen[0]["kwargs"] == ["config_name"]
    assert seen[-1]["hook"] == "on_multirun_end"
    assert seen[-1]["statuses"] == ["COMPLETED", "COMPLETED"]
    assert seen[-1]["kwargs"] == ["config_name", "job_returns"]
    for num, one in enumerate(returns):
        mine = [line for line in seen if line.get("num") == num]
        assert [line["hook"] for line in mine] == ["on_job_start", "on_job_end", "on_job_return"]
        assert mine[0]["pid"] == mine[1]["pid"] == one.return_value["pid"] != os.getpid()
        assert mine[0]["state"] == ["multirun_start", "job_start"]
        assert mine[0]["task"] == "train"
        assert mine[0]["kwargs"] == ["task_function"]
        assert mine[2]["pid"] == os.getpid()
        assert mine[2]["state"] == ["multirun_start"], "host-side state never comes back"


def test_run_fires_run_hooks_around_the_job(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """RUN mode: on_run_start here, the job there, on_run_end with its JobReturn."""
    record = tmp_path / "record"
    job_return = launcher.run(app.train, {"x": 3}, host=hosts[0], callbacks=[app.Recorder(record)])
    assert job_return.return_value["x"] == 3
    assert [line["hook"] for line in lines(record)] == [
        "on_run_start",
        "on_job_start",
        "on_job_end",
        "on_job_return",
        "on_run_end",
    ]
    assert lines(record)[-1]["status"] == "COMPLETED"
    assert lines(record)[0]["mode"] == "RUN"


def test_a_hook_that_raises_is_reported_and_the_run_goes_on(app: Any, hosts: list[Any]) -> None:
    """Policy `warn`: every report names the hook and has its traceback, and the jobs complete."""
    seen, observe = collect()
    hooks = ["on_multirun_start", "on_job_start", "on_job_end", "on_job_return", "on_multirun_end"]
    returns = launcher.multirun(
        app.train, [{"x": 1}, {"x": 2}], hosts=hosts, callbacks=[app.Raises(hooks)], observers=[observe]
    )
    assert [one.status.name for one in returns] == ["COMPLETED", "COMPLETED"]
    warned = Counter(event.source for event in seen if isinstance(event, events.Warned))
    assert warned == {
        "callback Raises.on_multirun_start": 1,
        "callback Raises.on_job_start": 2,
        "callback Raises.on_job_end": 2,
        "callback Raises.on_job_return": 2,
        "callback Raises.on_multirun_end": 1,
    }
    assert all("raised" in event.traceback for event in seen if isinstance(event, events.Warned))


@pytest.mark.slow
def test_the_config_of_on_job_return_is_the_hooks_own(app: Any) -> None:
    """It has the job's values, its hydra node and the local folder. The hook may edit it, and no edit reaches the JobReturn."""
    seen: list[tuple[Any, ...]] = []

    class Edits:
        def on_job_return(self, config: Any, job_return: Any, **kwargs: Any) -> None:
            config.x = config.x + 1
            config.new = {"y": 1}
            config.hydra.job.name = "edited"
            seen.append(
                (config.x, config.hydra.runtime.output_dir, job_return.cfg, job_return.hydra_cfg.hydra.job.name)
            )

        def __reduce__(self) -> Any:
            return (object, ())

    config = OmegaConf.create({"x": 1})
    OmegaConf.set_readonly(config, True)
    returns = launcher.multirun(lambda cfg: cfg.x, [config], callbacks=[Edits()])
    assert returns[0].return_value == 1
    [(x, folder, cfg, name)] = seen
    assert (x, folder, cfg) == (2, returns[0].output_dir, {"x": 1})
    assert OmegaConf.is_readonly(cfg)
    assert name != "edited"


@pytest.mark.slow
def test_policy_fail_makes_the_job_failed(app: Any, hosts: list[Any]) -> None:
    """The hook's job is FAILED of kind `hook`; the others are not."""
    returns = launcher.multirun(app.train, [{"x": 1}], hosts=hosts, callbacks=[app.Raises(["on_job_end"], "fail")])
    assert returns[0].error is not None
    assert returns[0].error.kind == "hook"


def test_policy_abort_stops_the_run_and_fires_the_end_hooks(
    app: Any, hosts: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In on_multirun_start: nothing runs, no host is connected to, and on_multirun_end fires."""
    record = tmp_path / "record"
    monkeypatch.setattr(AgentConnection, "start", lambda session: pytest.fail(f"{session.host} is connected to"))
    with pytest.raises(RunAborted, match="on_multirun_start"):
        launcher.multirun(
            app.train,
            [{"x": 1}],
            hosts=hosts,
            callbacks=[app.Recorder(record), app.Raises(["on_multirun_start"], "abort")],
        )
    assert [line["hook"] for line in lines(record)] == ["on_multirun_start", "on_job_return", "on_multirun_end"]
