"""What a host says is refused, or cut to its cap."""

from __future__ import annotations

import pytest

from launcher.agents.checks import check_attempt, short_name, short_texts, shortened
from launcher.hosts.limits import limit
from remote_agent.job import JobError
from remote_agent.protocol.wire import ProtocolError


@pytest.mark.parametrize("attempt", ["0.1", "3.12", "99999999.999"])
def test_the_name_of_an_attempt(attempt: str) -> None:
    """Two numbers."""
    assert check_attempt(attempt) == attempt


@pytest.mark.parametrize(
    "attempt",
    [
        "",
        ".",
        "1",
        "1.",
        ".1",
        "1.1.1",
        "-1.1",
        "1.+1",
        " 1.1",
        "1.1\n",
        "../1.1",
        "a.1",
        "1.\u0661",
        "\u00b2.1",
        "1." + "1" * 30,
    ],
)
def test_anything_else_is_no_attempt(attempt: str) -> None:
    """It would become a path, or no number. The message has only so much of it."""
    with pytest.raises(ProtocolError, match="attempt") as caught:
        check_attempt(attempt)
    assert len(str(caught.value)) < 100


def test_texts_are_cut() -> None:
    """Their number and their length; what is no text becomes one."""
    texts = short_texts(["x" * (limit("text") + 1), 3, *["y"] * limit("notes")])
    assert len(texts) == limit("notes")
    assert (len(texts[0]), texts[1]) == (limit("text"), "3")
    assert len(short_name("x" * 10_000)) == limit("name")


def test_an_error_is_cut_in_every_part() -> None:
    """What is short enough stays as it is."""
    long = "x" * (limit("error") + 1)
    error = shortened(JobError("exception", long, long, long, causes=("c",) * (limit("causes") + 1), exit_code=3))
    assert (len(error.type), len(error.message), len(error.traceback)) == (
        limit("name"),
        limit("error"),
        limit("error"),
    )
    assert (len(error.causes), error.exit_code) == (limit("causes"), 3)
    small = JobError("exception", "T", "m", "t")
    assert shortened(small) == small
