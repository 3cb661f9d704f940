"""What jobs have used, for people."""

from __future__ import annotations

from launcher.display.usage import usage_columns, usage_text
from remote_agent.job import ResourcesUsed

USED = ResourcesUsed(2.0, 1.5, 3 << 30, 0.5, 1 << 20, 100, 2048)


def test_a_job_has_one_line_with_what_is_known() -> None:
    """What is not known is left out, and is not 0."""
    assert usage_text(USED) == (
        "1.50 s of CPU time, at most 3.0 GiB of memory, 50% of the time of its GPUs, at most 1.0 MiB of GPU memory, 100 B sent to it, 2.0 KiB came back"
    )
    assert usage_text(ResourcesUsed(peak_memory=0)) == "at most 0 B of memory"
    assert usage_text(ResourcesUsed()) == usage_text(None) == ""


def test_a_table_has_columns_of_what_is_known_of_any_job() -> None:
    """In bytes and seconds for sorting, and as people read them."""
    assert usage_columns([ResourcesUsed(cpu_seconds=1.5), None, ResourcesUsed(bytes_in=7)]) == [
        ("CPU time", [1.5, None, None], ["1.50 s", "", ""]),
        ("sent", [None, None, 7], ["", "", "7 B"]),
    ]
    assert usage_columns([USED], ("peak_memory",)) == [("memory", [3 << 30], ["3.0 GiB"])]
    assert usage_columns([None]) == []
