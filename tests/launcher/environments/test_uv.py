"""What uv says when it fails is told, without secrets."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from launcher.environments import uv as module
from launcher.environments.uv import Steps, run_uv, uv_program, without_secrets
from launcher.errors import PackagesError
from tests.remote_agent.agent.environments.sites import Lives, script


def test_its_last_lines_are_told() -> None:
    """With what it was to do."""
    with pytest.raises(PackagesError, match=r"a test: `uv --no-such` ended with exit status 2:\n.*no-such"):
        run_uv("a test", ["--no-such"])


def test_its_version_is_that_of_the_distribution() -> None:
    """Found without the time that it takes to import what reads such things."""
    code = (
        "import sys\nfrom launcher.environments.uv import uv_version\nprint(uv_version())\n"
        "assert 'importlib.metadata' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (metadata.version("uv"), "")


def test_a_later_run_imports_nothing_that_fetches() -> None:
    """All its files are on its hosts."""
    code = (
        "import sys\nimport launcher.setup.environments\n"
        "slow = {'ssl', 'urllib.request', 'http.client', 'importlib.metadata', 'packaging', 'zipfile', 'netrc', 'ctypes'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_urls_lose_their_credentials() -> None:
    """Whatever stands before the @."""
    assert without_secrets("at https://me:pass@index.test/simple, x@y") == "at https://***@index.test/simple, x@y"


def test_without_uv_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "uv", None)
    module.uv_program.cache_clear()
    try:
        with pytest.raises(PackagesError, match=r"hydra-remote-launcher\[environments\]"):
            uv_program()
    finally:
        module.uv_program.cache_clear()


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lives:
    """Uv hangs, with a child as it has one while it builds."""
    lives = Lives(tmp_path / "lives")
    uv = script(tmp_path / "uv", lives.hanging("echo asks https://me:secret@index.test >&2"))
    monkeypatch.setattr(module, "uv_program", lambda: uv)
    return lives


def test_what_does_not_end_is_ended(hanging: Lives) -> None:
    """With its children; it is said what it waited for as far as it is known, and what to do."""
    told = r"(?s)a test: `uv build` did not end within .*:\nasks https://\*\*\*@index.test\n    next: .*environment_timeout"
    with pytest.raises(PackagesError, match=told):
        run_uv("a test", ["build"], steps=Steps(1.0))
    hanging.wait_ended()


def test_ctrl_c_ends_it(hanging: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of the thread that waits does, whichever it is."""

    def interrupted(process: object, timeout: float) -> None:
        hanging.wait_begun()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_uv("a test", ["build"])
    hanging.wait_ended()


def test_a_run_that_is_over_ends_it(hanging: Lives) -> None:
    """And begins nothing more."""
    steps = Steps()
    failed: list[str] = []

    def run() -> None:
        try:
            run_uv("a test", ["build"], steps=steps)
        except PackagesError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    hanging.wait_begun()
    steps.stop()
    thread.join(60)
    hanging.wait_ended()
    assert failed == ["environment: the run is over"]
    with pytest.raises(PackagesError, match="the run is over"):
        run_uv("a test", ["build"], steps=steps)
