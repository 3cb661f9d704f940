"""What a notebook shows of a run."""

from __future__ import annotations

import html
import re
from pathlib import Path

from launcher.tables.notebook import run_html
from tests.journals import MadeJob, failure, table_of


def rows_of(text: str) -> list[list[str]]:
    """The cells of each row of jobs."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    return [[html.unescape(re.sub("<.*?>", "", cell)) for cell in row.split("</td>")[:-1]] for row in rows]


def test_a_run_has_a_bar_and_its_jobs_with_failures_first(tmp_path: Path) -> None:
    """With what varies, what came back, and what was used where that is known."""
    jobs = [
        MadeJob(["lr=1", "seed=1"], {"loss": 0.5}, used={"cpu_seconds": 1.5, "peak_memory": 1 << 20}),
        MadeJob(["lr=2", "seed=1"], state="waiting"),
        MadeJob(["lr=3", "seed=1"], state="FAILED", error=failure(message="<b>no</b>")),
        MadeJob(["lr=4", "seed=1"], state="running"),
    ]
    text = run_html(table_of(tmp_path, jobs, end=""))
    assert '<progress value="2" max="4"></progress> 1 completed, 1 failed, 2 open' in text
    assert rows_of(text) == [
        ["2", "FAILED", "gpu1", "2.00 s", "", "", "3", "", "ZeroDivisionError: <b>no</b>"],
        ["3", "running", "gpu1", "", "", "", "4", "", ""],
        ["1", "waiting", "", "", "", "", "2", "", ""],
        ["0", "COMPLETED", "gpu1", "2.00 s", "1.50 s", "1.0 MiB", "1", "0.5", ""],
    ]
    assert "<b>no" not in text


def test_a_long_run_has_its_first_jobs(tmp_path: Path) -> None:
    """The others are counted."""
    text = run_html(table_of(tmp_path, [MadeJob([f"x={x}"]) for x in range(60)]))
    assert len(rows_of(text)) == 50
    assert "... and 10 more jobs" in text
