"""Real notebooks, in a real kernel: a session spans cells, and what cells define travels to a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.hosts.host_spec import HostSpec
from tests.requirements import need_module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: How a notebook ends: nothing is left that waits.
_END = "session.shutdown()"
#: Code for a cell: an interrupt, as by the stop button, when the job runs; and a task that never ends by itself.
_STOP = """
import os, signal, threading, time
from launcher.session.session import JobState

def interrupt(job):
    while job.state is not JobState.RUNNING:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def waits(cfg):
    import signal
    signal.pause()

job = session.submit(waits, {})
threading.Thread(target=interrupt, args=(job,)).start()
job.result()
"""


class _Notebook:
    """A notebook that runs in a folder of its own, with a session on one host."""

    def __init__(self, folder: Path, host: HostSpec) -> None:
        folder.mkdir()
        hosts = folder / "hosts.json"
        said = {
            "address": host.address,
            "ssh_config": host.ssh_config,
            "workdir": host.workdir,
            "python": host.python,
            "slots": 2,
        }
        hosts.write_text(json.dumps({"h": {name: value for name, value in said.items() if value is not None}}))
        self._folder = folder
        self.begin = f"import launcher\nfrom launcher.hosts.inventory import load_hosts_file\nsession = launcher.Session.open(hosts=load_hosts_file({str(hosts)!r}), folder='run')"

    def run(self, *cells: str) -> list[dict[str, Any]]:
        """Run these cells, and an end. Returns of each what it printed (`text`), showed (`html`) and raised (`error`)."""
        import nbclient
        import nbformat

        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in (self.begin, *cells, _END)])
        client = nbclient.NotebookClient(
            book, timeout=200, allow_errors=True, resources={"metadata": {"path": str(self._folder)}}
        )
        client.execute()
        told = [_told(cell.outputs) for cell in book.cells]
        assert (told[0]["error"], told[-1]["error"]) == ("", "")
        return told[1:-1]


def _told(outputs: list[Any]) -> dict[str, Any]:
    shown = [one for one in outputs if one.output_type in ("display_data", "execute_result")]
    return {
        "text": "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout"),
        "html": "".join(one.data.get("text/html", "") for one in shown),
        "error": "".join(one.ename for one in outputs if one.output_type == "error"),
    }


@pytest.fixture
def notebook(any_host: HostSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Notebook:
    """A notebook with a host of each kind."""
    need_module("nbclient")
    need_module("ipykernel")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # A kernel on sockets of this machine alone.
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return _Notebook(tmp_path / "notebook", any_host)


def test_what_cells_define_travels_and_may_be_defined_anew(notebook: _Notebook) -> None:
    """Functions with the classes and functions of other cells that they use. A traceback has the lines of the cell."""
    first, again, awaited, failed, shown, job, session = notebook.run(
        "class Point:\n    def __init__(self, x):\n        self.x = x\ndef task(cfg):\n    return Point(cfg.x)\nprint(session.submit(task, {'x': 2}).result().x)",
        "def task(cfg):\n    return cfg.x * 3\nprint(session.submit(task, {'x': 2}).result())",
        "print(await session.submit(task, {'x': 5}))",
        "def bad(cfg):\n    return 1 / cfg.x  # here\nj = session.submit(bad, {'x': 0})\nprint(j.job_return().error.traceback)",
        "session.returns",
        "j",
        "session",
    )
    assert [one["text"] for one in (first, again, awaited)] == ["2\n", "6\n", "15\n"]
    assert "return 1 / cfg.x  # here" in failed["text"]
    assert "in bad" in failed["text"]
    assert "3 completed, 1 failed, 0 open" in shown["html"]
    assert "ZeroDivisionError" in job["html"]
    assert shown["html"] == session["html"]


def test_what_a_task_uses_may_be_defined_anew(notebook: _Notebook) -> None:
    """The task itself is the same object as before: the one that all jobs of the session share."""
    first, again = notebook.run(
        "def factor():\n    return 3\ndef task(cfg):\n    return cfg.x * factor()\nprint(session.submit(task, {'x': 2}).result())",
        "def factor():\n    return 100\nprint(session.submit(task, {'x': 2}).result())",
    )
    assert [first["text"], again["text"]] == ["6\n", "200\n"]


def test_the_stop_button_leaves_the_session_usable(notebook: _Notebook) -> None:
    """The cell that waits ends, as with Ctrl-C. The job goes on, and so does the session."""
    stopped, after, ended = notebook.run(
        _STOP,
        "def task(cfg):\n    return cfg.x\nprint(session.submit(task, {'x': 7}).result(), job.state.name)",
        "job.cancel()\nprint(job.job_return().error.kind)",
    )
    assert stopped["error"] == "KeyboardInterrupt"
    assert after["text"] == "7 RUNNING\n"
    assert ended["text"] == "cancelled\n"


def test_other_tasks_of_the_loop_run_while_a_cell_awaits_jobs(notebook: _Notebook) -> None:
    """A notebook's cells run in an event loop, which nothing of a session holds up"""
    (told,) = notebook.run(
        "import asyncio\ndef task(cfg):\n    return cfg.x\n"
        "turns = []\nasync def turn():\n    turns.append(await session.submit(task, {'x': 1}))\n"
        "other = asyncio.ensure_future(turn())\n"
        "print(await asyncio.gather(*[session.submit(task, {'x': x}) for x in range(3)], other), turns)",
    )
    assert told["text"] == "[0, 1, 2, None] [1]\n"
