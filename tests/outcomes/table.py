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

This page is for people who handle failures. Whatever a job does, it has one JobReturn, and each of its hooks has fired once. `tests/outcomes` tests every row on this
machine and over SSH, and `python -m tests.outcomes` writes the page. *Reading* is what `return_value` gives under `results=trusted`, and behind a semicolon under
`results=safe` if that differs ([security.md](security.md)). Under `safe` nothing is pickled, so a value that cannot be pickled is no failure there. The job is COMPLETED, and reading
the value says what is not plain data.

| a job that | status | `error.kind` | `error.message` has | reading |
|---|---|---|---|---|
"""

_TAIL = """
* For a failed job, reading `return_value` raises the original exception if it can be sent. The host tries that first. Otherwise it raises a `RemoteJobError`.
  The remote traceback is in `error.traceback` in both cases, and in the job's own log.
* An exception that would end whoever reads it (`SystemExit`, `KeyboardInterrupt`, other subclasses of `BaseException`) becomes a `RemoteJobError`, too.
* `error.causes` has the chain of causes, each with type and message.
* A pickle can run code when it is loaded. So the job whose pickle starts a process starts it here when you read its value, and not before. Under `safe`, no pickle is made.
* A value of 2 GiB or more comes back whole. It takes no memory here before it is read.
* The outcome is decided before the process ends. [durability.md](durability.md#the-end-of-a-jobs-process) says what the end of a process waits for, and how long.
"""


def page() -> str:
    """Return the page."""
    functions = {node.name: node for node in ast.parse(APP.read_text()).body if isinstance(node, ast.FunctionDef)}
    rows = []
    for case in CASES:
        text = ast.get_docstring(functions[case.how]) or ""
        what = text[:1].lower() + text[1:]
        status = "COMPLETED" if case.kind is None else "FAILED"
        reads = case.reads + (f"; {case.safe}" if case.safe else "")
        rows.append(f"| {what} | {status} | {case.kind or ''} | {case.message} | {reads} |\n")
    return _HEAD + "".join(rows) + _TAIL
