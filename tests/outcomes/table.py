"""docs/outcomes.md, made from the table of cases and the docstrings of the application."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.outcomes.cases import CASES

__all__ = ["APP", "PAGE", "page"]

_ROOT = Path(__file__).resolve().parent.parent.parent
APP = _ROOT / "tests" / "apps" / "outcomes" / "outcomes_app.py"
PAGE = _ROOT / "docs" / "outcomes.md"

_HEAD = """# What comes of a job

Whatever a job does, it has one JobReturn, and each of its hooks has fired once. Every row is tested on this machine and over
SSH by `tests/outcomes`, from which the page is generated (`python -m tests.outcomes`). *Reading* is what `return_value`
gives, first under `results=trusted`, and under `results=safe` where that is something else (`docs/security.md`). Under `safe` nothing is
pickled, so what cannot be pickled is no failure there: the job is COMPLETED, and reading says what cannot be said as plain data.

| a job that | status | `error.kind` | `error.message` has | reading |
|---|---|---|---|---|
"""

_TAIL = """
* Of a failed job, reading `return_value` raises the original exception where it survives the trip, which the host tries out before it
  sends it; else a `RemoteJobError`. The remote traceback is in `error.traceback` either way, and in the job's own log.
* What would end whoever reads it (`SystemExit`, `KeyboardInterrupt`, other subclasses of `BaseException`) is a `RemoteJobError`, too.
* `error.causes` has the chain of causes, each with type and message.
* A pickle can run code when it is loaded: that is what *the value* of a job whose pickle starts a process means. It is not loaded before
  you read it; under `safe` nobody makes one.
* A value of 2 GiB and more comes back whole; it takes no memory here before it is read.
* The outcome is decided before the process ends. What its end waits for, and how long, says `docs/durability.md`.
"""


def page() -> str:
    """The page."""
    functions = {node.name: node for node in ast.parse(APP.read_text()).body if isinstance(node, ast.FunctionDef)}
    rows = []
    for case in CASES:
        text = ast.get_docstring(functions[case.how]) or ""
        what = text[:1].lower() + text[1:]
        status = "COMPLETED" if case.kind is None else "FAILED"
        reads = case.reads + (f"; {case.safe}" if case.safe else "")
        rows.append(f"| {what} | {status} | {case.kind or ''} | {case.message} | {reads} |\n")
    return _HEAD + "".join(rows) + _TAIL
