"""What jobs print becomes whole, clean lines, each with its job and host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import events
from launcher.live.lines import LineCutter, LinePrinter


def test_a_line_is_given_when_it_is_complete() -> None:
    """Jobs and streams do not disturb each other."""
    cutter = LineCutter()
    assert cutter.feed(0, "stdout", b"a") == []
    assert cutter.feed(0, "stderr", b"E\n") == ["E"]
    assert cutter.feed(1, "stdout", b"other\nx") == ["other"]
    assert cutter.feed(0, "stdout", b"b\nc\nd") == ["ab", "c"]
    assert cutter.finish(0) == ["d"]
    assert cutter.finish(0) == []
    assert cutter.finish(1) == ["x"]


def test_a_character_may_come_in_two_pieces_and_bytes_may_be_no_text() -> None:
    """It is decoded when its line is whole."""
    cutter = LineCutter()
    first, second = "\u00e9\n".encode()[:1], "\u00e9\n".encode()[1:]
    assert cutter.feed(0, "stdout", first) == []
    assert cutter.feed(0, "stdout", second) == ["\u00e9"]
    assert cutter.feed(0, "stdout", b"\xff\n") == ["\\xff"]


def test_a_line_without_an_end_costs_little_memory() -> None:
    """It is shown in pieces; of a progress bar, only the last text is kept."""
    cutter = LineCutter()
    shown = [line for _ in range(10) for line in cutter.feed(0, "stdout", b"x" * 50_000)]
    assert sum(map(len, shown)) + sum(map(len, cutter.finish(0))) == 500_000
    assert shown
    for number in range(100_000):
        assert cutter.feed(0, "stdout", b"\r%d%%" % number) == []
    assert cutter.finish(0) == ["99999%"]


@given(st.lists(st.binary(max_size=5), max_size=20))
def test_it_does_not_matter_where_the_output_is_cut(pieces: list[bytes]) -> None:
    """The same lines come."""
    one, other = LineCutter(), LineCutter()
    cut = [line for piece in pieces for line in one.feed(0, "stdout", piece)] + one.finish(0)
    whole = other.feed(0, "stdout", b"".join(pieces)) + other.finish(0)
    assert cut == whole


def test_from_python_each_line_names_its_job_and_host(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one, without a newline, when the job has returned or goes to another host."""
    show = LinePrinter()
    for event in (
        events.OutputArrived(0.0, 3, "gpu1", "stdout", "one\ntw"),
        events.Note(0.0, "nothing to show"),
        events.JobRequeued(0.0, 3, 1, "gpu1", "lost"),
        events.OutputArrived(0.0, 3, "gpu2", "stdout", "again", 2),
        events.JobReturned(0.0, 3, 2, "gpu2", "COMPLETED", 1.0, None),
    ):
        show(event)
    assert capsys.readouterr().out == "[3 gpu1] one\n[3 gpu1] tw\n[3 gpu2] again\n"
