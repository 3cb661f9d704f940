"""The hooks that fired, for tests."""

from __future__ import annotations

STARTS = [("on_job_start", name) for name in "eabc"]


ENDS = [("on_job_end", name) for name in "ecba"]


def fired(attempt):
    return [(record["hook"], record["callback"], record["ok"]) for record in attempt.envelope["hooks"]]
