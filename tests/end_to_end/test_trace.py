"""A run as a trace: what a collector gets of a whole run, and what the jobs are told."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.cli.main import main
from launcher.demo.server import DemoServer
from launcher.hosts.inventory import load_hosts
from remote_agent.protocol.trace import traceparent
from tests.hosts.openssh import running_openssh_host
from tests.otlp import Receiver, receiving
from tests.trace_tasks import Hooks, gated, train


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in [one for one in os.environ if one.startswith("OTEL_") or one == "TRACEPARENT"]:
        monkeypatch.delenv(name)


def _check(receiver: Receiver, told: str | None, host: str) -> None:
    """One tree, whose job knows its span, and whose failure is one."""
    (root,) = [span for span in receiver.spans if not span.parent]
    by_id = {span.id: span for span in receiver.spans}
    assert all(span.parent in by_id for span in receiver.spans if span is not root)
    assert {span.trace for span in receiver.spans} == {root.trace}
    assert all(root.begin <= span.begin <= span.end <= root.end for span in receiver.spans)
    attempts = {span.name: span for span in receiver.spans if span.name.startswith("attempt ")}
    assert told == traceparent(root.trace, "0.1") == f"00-{root.trace}-{attempts['attempt 0.1'].id}-01"
    for attempt in attempts.values():
        parts = {span.name: span for span in receiver.spans if span.parent == attempt.id}
        assert set(parts) == {"queue", "on_job_start Hooks", "work", "on_job_end Hooks"}
        in_order = [parts[name] for name in ("queue", "on_job_start Hooks", "work", "on_job_end Hooks")]
        assert all(one.end <= other.begin + 1e-5 for one, other in itertools.pairwise(in_order))
        assert {span.resource["host.name"] for span in (attempt, *in_order)} == {host}
    assert attempts["attempt 1.1"].problem == "ValueError: bad"
    assert root.problem == "1 of 2 jobs failed"
    names = [span.name for span in receiver.spans]
    for name in ("on_multirun_start Hooks", "on_multirun_end Hooks", f"set up {host}", "job 0", "job 1"):
        assert names.count(name) == 1


def _sweep(hosts: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> Any:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    configs = [{"fails": False}, {"fails": True}]
    return launcher.multirun(train, configs, hosts=hosts, folder=folder, callbacks=[Hooks()], otel=True)


def test_a_run_here_is_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tree, made of what was recorded."""
    with receiving() as receiver:
        first, _ = _sweep(["local/2"], tmp_path / "run", monkeypatch, receiver)
    _check(receiver, first.return_value, "local")


@pytest.mark.slow
def test_a_run_over_ssh_is_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has nothing of OpenTelemetry's, and reaches no collector. `launcher trace` sends the same once more."""
    with DemoServer() as demo, receiving() as receiver:
        hosts = load_hosts({"demo": {"address": "demo", "ssh_config": str(demo.ssh_config), "slots": 2}}, "test")
        first, _ = _sweep(list(hosts), tmp_path / "run", monkeypatch, receiver)
        _check(receiver, first.return_value, "demo")
        before = [(span.id, span.name, span.begin, span.end) for span in receiver.spans]
        receiver.spans.clear()
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["trace", str(tmp_path / "run")])
        assert [(span.id, span.name, span.begin, span.end) for span in receiver.spans] == before


@pytest.mark.openssh
def test_a_run_on_a_host_apart_is_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host shares nothing with the controller."""
    with running_openssh_host(tmp_path / "host") as host, receiving() as receiver:
        spec = host.spec(slots=2)
        first, _ = _sweep([spec], tmp_path / "run", monkeypatch, receiver)
        _check(receiver, first.return_value, spec.name)


def test_without_the_option_jobs_are_told_nothing(tmp_path: Path) -> None:
    """Spans of theirs would have a parent that nobody has."""
    (one,) = launcher.multirun(train, [{"fails": False}], folder=tmp_path / "run")
    assert one.return_value is None


@pytest.mark.slow
def test_jobs_that_share_a_process_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `reuse`, too, and in the trace of whoever started the run."""
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        returns = launcher.multirun(
            train, [{"fails": False}] * 3, folder=tmp_path / "run", otel=True, isolation="reuse"
        )  # fmt: skip
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert [one.return_value for one in returns] == [traceparent(trace, f"{num}.1") for num in range(3)]
    assert {span.trace for span in receiver.spans} == {trace}
    assert [span.name for span in receiver.spans if span.parent == "b7ad6b7169203331"] == ["multirun train"]


@pytest.mark.slow
def test_a_run_that_was_left_has_its_trace_when_it_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trace, with the parent that the first controller had."""
    told = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", told)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        session = launcher.Session.open(folder=tmp_path / "run", otel=True, hosts=["local/1"])
        with session:
            jobs = [session.submit(gated, {"gate": str(tmp_path / "gate")}) for _ in range(2)]
            session.detach()
        (tmp_path / "gate").write_text("")
        assert len(jobs) == 2
        assert not receiver.spans
        monkeypatch.delenv("TRACEPARENT")
        with launcher.Session.resume(tmp_path / "run") as again:
            again.collect()
            values = [one.return_value for one in again.returns]
    assert values == [traceparent(told.split("-")[1], f"{num}.1") for num in range(2)]
    (root,) = [span for span in receiver.spans if span.parent == "b7ad6b7169203331"]
    assert root.trace == "0af7651916cd43dd8448eb211c80319c"


def test_a_dead_collector_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are all there."""
    happened: list[events.Event] = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    (one,) = launcher.multirun(
        train, [{"fails": False}], folder=tmp_path / "run", otel=True, observers=[happened.append]
    )  # fmt: skip
    assert one.return_value
    (warned,) = [event for event in happened if isinstance(event, events.Warned)]
    assert warned.source == "otel"
    assert "127.0.0.1:9" in warned.message
