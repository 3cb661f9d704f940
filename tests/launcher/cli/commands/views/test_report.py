"""`launcher report`: where the page is written, and when it is not."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from tests.commands import Cli
from tests.journals import MadeJob, listed, make_run


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command `launcher`, with runs of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Cli(capfdbinary)


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> str:
    """A run of three jobs."""
    jobs = [MadeJob([f"lr={lr}"], {"loss": lr}) for lr in range(3)]
    return listed(make_run(tmp_path / "run", jobs)).run


def test_the_page_is_in_the_folder_of_the_run(cli: Cli, run: str, tmp_path: Path) -> None:
    """Its path is what the command prints. A second time it takes the place of the first."""
    for _ in range(2):
        assert cli("report", run) == f"{tmp_path / 'run' / 'report.html'}\n"
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert not list((tmp_path / "run").glob(".report*"))


def test_the_best_job_is_the_one_that_was_asked_for(cli: Cli, run: str, tmp_path: Path) -> None:
    """The greatest with a minus. An unknown name is refused, and no page is written."""
    path = tmp_path / "page.html"
    cli("report", run, "-o", str(path), "--sort", "los", code=2)
    assert not path.exists()
    cli("report", run, "-o", str(path), "--sort", "-loss")
    assert '<dt>best loss</dt><dd>2 <a href="#job-2">' in path.read_text()


def test_open_opens_the_page(cli: Cli, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's browser. Without one, that is said."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) > 1)
    cli("report", run, "--open")
    assert "no browser was found" in cli.err
    cli("report", run, "--open")
    assert opened == [(tmp_path / "run" / "report.html").as_uri()] * 2
    assert cli.err == ""


def test_a_page_that_cannot_be_written_is_an_error(cli: Cli, run: str, tmp_path: Path) -> None:
    """With the next step."""
    cli("report", run, "-o", str(tmp_path / "missing" / "page.html"), code=2)
    assert "name another file with --output" in cli.err


def test_a_real_run_has_a_report(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it leaves in its folder: the command, the failure, and links to files of jobs."""
    (tmp_path / "reported_app.py").write_text("def train(cfg):\n    return {'loss': 1 / cfg.lr}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["launcher", "multirun", "reported_app.py:train", "lr=0,1,2"])
    cli("multirun", "reported_app.py:train", "lr=0,1,2", "--folder", str(tmp_path / "real"), code=1)
    cli("report", str(tmp_path / "real"))
    page = (tmp_path / "real" / "report.html").read_text()
    for said in (
        "ZeroDivisionError: division by zero",
        "reported_app.py:2 in train",
        "launcher multirun reported_app.py:train lr=0,1,2",
        'href="./1/"',
        "least loss",
    ):
        assert said in page, said
