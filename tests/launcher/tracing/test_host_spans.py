"""The spans of hosts."""

from __future__ import annotations

from pathlib import Path

from launcher import events
from launcher.tracing.spans import read_trace
from tests.journals import START, MadeJob, make_run


def test_setting_a_host_up_says_what_was_sent(tmp_path: Path) -> None:
    """And which way was taken, if that was before it was ready."""
    happened = [
        events.WayChosen(START + 0.1, "gpu3", "openssh", "a jump"),
        events.CodeSent(START + 0.2, "gpu3", 7, 3, 4096),
        events.EnvironmentReady(START + 0.3, "gpu3", "ab" * 32, True, 10),
        events.HostReady(START + 0.4, "gpu3", 4, "3.8.1"),
    ]
    trace = read_trace(make_run(tmp_path, [MadeJob()], happened=happened))
    found = {span.name: span for span in trace.spans}
    span = found["set up gpu3"]
    assert (span.peer, span.attributes["server.address"]) == ("gpu3", "gpu3")
    assert (span.attributes["remote_launcher.ssh.way"], span.attributes["remote_launcher.slots"]) == ("openssh", 4)
    assert [moment.name for moment in span.moments] == ["code sent", "environment ready"]
    assert span.moments[0].attributes["remote_launcher.code.sent_bytes"] == 4096
    assert trace.pythons["gpu3"] == "3.8.1"


def test_a_host_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    """With the phase as the type of the error."""
    happened = [events.HostUnusable(START + 0.4, "gpu3", "host key", "it has changed", "look")]
    span = {one.name: one for one in read_trace(make_run(tmp_path, [MadeJob()], happened=happened)).spans}[
        "set up gpu3"
    ]
    assert span.problem == "host key: it has changed"
    assert span.attributes["error.type"] == "host key"


def test_a_lost_link_lasts_until_the_host_is_back(tmp_path: Path) -> None:
    """Or to the end of the run."""
    happened = [
        events.HostUnknown(START + 1.0, "gpu1", "reset", (0,)),
        events.HostReady(START + 2.0, "gpu1", 2, "3.11.7", reconnected=True),
        events.HostUnknown(START + 2.5, "gpu2", "timeout"),
    ]
    jobs = [MadeJob(begin=3.0), MadeJob(host="gpu2")]
    spans = list(read_trace(make_run(tmp_path, jobs, happened=happened)).spans)
    found = {span.name: span for span in spans}
    first, second = found["link lost gpu1"], found["link lost gpu2"]
    assert (first.begin - START, first.end - START, first.problem) == (1.0, 2.0, "reset")
    assert (first.attributes["remote_launcher.jobs"], second.end) == (1, spans[0].end)
