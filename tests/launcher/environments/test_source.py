"""What the user names as an environment becomes a file that describes packages, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.environments.source import Source, find_source
from launcher.errors import PackagesError

BLOCK = '# /// script\n# dependencies = ["six"]\n# ///\n'


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["uv.lock", "pylock.toml", "requirements.txt"], "uv"),
        (["pylock.toml", "requirements.txt"], "pylock"),
        (["requirements.txt"], "requirements"),
    ],
)
def test_auto_takes_the_most_exact(files: list[str], kind: str, tmp_path: Path) -> None:
    """A lock before requirements."""
    for name in files:
        (tmp_path / name).write_text("")
    app = tmp_path / "app.py"
    app.write_text(BLOCK)
    assert find_source("auto", app, app) == Source(kind, tmp_path / files[0])  # type: ignore[arg-type]


def test_auto_looks_upward_within_the_repository(tmp_path: Path) -> None:
    """The nearest folder counts, and nothing above the repository does."""
    (tmp_path / "uv.lock").write_text("")
    inner = tmp_path / "repository" / "src" / "app"
    inner.mkdir(parents=True)
    (tmp_path / "repository" / ".git").mkdir()
    with pytest.raises(PackagesError, match="auto"):
        find_source("auto", inner, None)
    (tmp_path / "repository" / "requirements.txt").write_text("")
    found = find_source("auto", inner / "app.py", None)
    assert found == Source("requirements", tmp_path / "repository" / "requirements.txt")


def test_a_script_says_what_it_needs(tmp_path: Path) -> None:
    """By `script`, by its name, and last by `auto`; a script without a block is refused."""
    app = tmp_path / "app.py"
    app.write_text(f"#!/usr/bin/env python3\n{BLOCK}print(1)\n")
    for word in ("script", str(app), "auto"):
        assert find_source(word, app, app) == Source("script", app)
    app.write_text("print(1)\n")
    for word in ("script", str(app), "auto"):
        with pytest.raises(PackagesError):
            find_source(word, app, app)


def test_none_is_none() -> None:
    """A host may have none where the run has one."""
    assert find_source("none", None, None) is None


def test_a_name_is_found_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for who stands elsewhere."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "uv.lock").write_text("")
    monkeypatch.chdir(tmp_path)
    assert find_source("uv.lock", tmp_path / "project" / "app.py", None) == Source(
        "uv", tmp_path / "project" / "uv.lock"
    )


@pytest.mark.parametrize(
    ("name", "told"), [("pyproject.toml", "uv lock"), ("x.yaml", "uv.lock"), ("gone", "not a file")]
)
def test_what_is_no_source_is_refused(name: str, told: str, tmp_path: Path) -> None:
    """With what is allowed."""
    if name != "gone":
        (tmp_path / name).write_text("")
    with pytest.raises(PackagesError, match=told):
        find_source(str(tmp_path / name), None, None)
