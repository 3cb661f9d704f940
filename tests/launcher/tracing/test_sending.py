"""Sending a trace: what arrives, and what a service that does not answer costs."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import events
from launcher.errors import ConfigError, LauncherError
from launcher.tracing import sending
from launcher.tracing.sending import problem_of_sending, send, shown_address
from launcher.tracing.spans import read_trace
from tests.journals import START, MadeJob, listed, make_run
from tests.otlp import receiving


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the user's."""
    import os

    for name in [one for one in os.environ if one.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_trace_arrives_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with the official protobufs: ids, times, kinds, errors, and whose each span is."""
    entry = make_run(tmp_path, [MadeJob(["lr=1"]), MadeJob(state="FAILED", host="gpu2")])
    expected = {span.id: span for span in read_trace(entry).spans}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "sweeps")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=vision,service.version=9")
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
        sent = send(read_trace(entry))
    assert (sent.spans, sent.why) == (len(expected), "")
    assert {span.id for span in receiver.spans} == set(expected)
    for span in receiver.spans:
        made = expected[span.id]
        assert (span.trace, span.parent, span.name) == (sent.trace, made.parent, made.name)
        assert (span.begin, span.end) == pytest.approx((made.begin, made.end), abs=1e-6)
        assert (span.status, span.problem) == ((2, made.problem) if made.problem else (0, ""))
        assert (span.resource["service.name"], span.resource["team"]) == ("sweeps", "vision")
        assert span.kind == (3 if made.peer else 1)
        if made.host:
            assert (span.resource["host.name"], span.resource["process.runtime.version"]) == (made.host, "3.11.7")
    found = {span.name: span for span in receiver.spans}
    assert found["job 0"].attributes["remote_launcher.job.overrides"] == ["lr=1"]
    assert [name for name, _ in found["job 1"].moments] == ["exception"]
    assert receiver.requests[0]["authorization"] == "Bearer abc"


def test_many_spans_go_in_several_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service limits the size of one."""
    monkeypatch.setattr(sending, "_BATCH", 4)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", receiver.address + "/v1/traces")
        sent = send(read_trace(make_run(tmp_path, [MadeJob()] * 5)))
    assert len(receiver.spans) == sent.spans
    assert len(receiver.requests) == -(-sent.spans // 4)


@pytest.mark.parametrize("answer", [400, 0])
def test_a_service_that_fails_or_hangs_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    """It names the address without its password, and what to do. OpenTelemetry itself shows nothing."""
    entry = listed(make_run(tmp_path / "run", [MadeJob()]))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=verysecret")
    with receiving(answer) as receiver, caplog.at_level(logging.DEBUG, "root"):
        address = receiver.address.replace("http://", "http://user:pass@")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        problem = problem_of_sending(entry)
        assert receiver.requests
    assert problem.startswith(f"the trace was not sent to {receiver.address}: ")
    assert problem.endswith(f"; 'launcher trace {entry.run}' sends it again")
    assert "pass" not in problem
    assert "verysecret" not in problem
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_hanging_exporter_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does: the end of a run waits a limited time, and the process can end."""
    import threading

    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    never, was_shut_down = threading.Event(), threading.Event()

    class Hanging:
        def __init__(self, **kwargs: object) -> None:
            pass

        def export(self, spans: object) -> object:
            assert threading.current_thread().daemon
            never.wait()
            raise AssertionError

        def shutdown(self) -> None:
            was_shut_down.set()

    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", Hanging)
    monkeypatch.setattr(sending, "_LIMIT", 0.1)
    sent = send(read_trace(make_run(tmp_path, [MadeJob()])))
    assert "did not answer in time" in sent.why
    assert was_shut_down.is_set()
    never.set()


def test_a_damaged_journal_is_a_warning_too(tmp_path: Path) -> None:
    """The run has ended, and everything was collected."""
    entry = make_run(tmp_path, [MadeJob()])
    (tmp_path / ".launcher" / "journal.sqlite").write_bytes(b"no journal" * 100)
    assert problem_of_sending(entry).startswith("the trace was not sent: JournalError: ")


def test_variables_that_make_no_sense_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the command, as its error."""
    from opentelemetry.exporter.otlp.proto.http import trace_exporter

    def refuse(**kwargs: object) -> None:
        raise ValueError("brotli of http://u:pw@h is not a valid Compression")

    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", refuse)
    with pytest.raises(LauncherError, match=r"make no sense: brotli of http://h is not .*; see OTEL_EXPORTER_OTLP_"):
        send(read_trace(make_run(tmp_path, [MadeJob()])))


def test_the_address_that_is_shown_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a query, in which some services want their key."""
    assert shown_address() == "http://localhost:4318"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://u:p@collector.lab/otlp?key=k")
    assert shown_address() == "https://collector.lab"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[x")
    assert shown_address() == "an address that is none"


def test_texts_of_hosts_are_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal may show them one day."""
    happened = [events.HostUnusable(START + 0.4, "gpu3", "setup", "\x1b[31mred\x07", "")]
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
        send(read_trace(make_run(tmp_path, [MadeJob()], happened=happened)))
    assert receiver.by_name()["set up gpu3"].problem.isprintable()


def test_nothing_of_opentelemetry_is_imported_for_a_run_without_a_trace() -> None:
    """It takes a while."""
    code = "import sys, launcher; launcher.run; import launcher.tracing.sending; print([m for m in sys.modules if 'opentelemetry' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is sent to a host."""
    import launcher

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"otel: it needs OpenTelemetry: pip install 'hydra-remote-launcher\[otel\]'"):
        launcher.run(lambda cfg: 1, {}, folder=tmp_path / "run", otel=True)
    assert not (tmp_path / "run").exists()
