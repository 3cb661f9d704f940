"""Pythons that uv has fetched: named as uv names them, and used only if they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_agent.agent.environments.build import Builder, BuildError
from remote_agent.agent.environments.fetched_pythons import FetchedPythons
from remote_agent.agent.environments.pythons import find_pythons
from tests.fetchable import make_fetchable_python, name_of_python
from tests.remote_agent.agent.environments.sites import KEY, Site, script


def put(cache: Path, name: str) -> Path:
    """A Python that lies there, and was not recorded as complete."""
    (cache / "pythons").mkdir(mode=0o700, exist_ok=True)
    return Path(script(cache / "pythons" / name / "bin" / f"python3.{name.split('.')[1]}", "exit 1"))


def test_a_python_counts_when_it_is_whole(tmp_path: Path) -> None:
    """What an installation that failed has left is none."""
    pythons = FetchedPythons(str(tmp_path))
    assert list(pythons.all()) == []
    found = {}
    for name in ("cpython-3.9.20-linux-x86_64-gnu", "cpython-3.12.4-linux-x86_64-gnu"):
        found[f"uv:{name}"] = str(put(tmp_path, name))
        assert pythons.path(f"uv:{name}") is None
        pythons.keep(name)
        assert pythons.path(f"uv:{name}") == found[f"uv:{name}"]
    assert list(pythons.all()) == list(reversed(found.items()))


@pytest.mark.parametrize(
    "named", ["/usr/bin/python3", "uv:", "uv:../../etc", "uv:cpython-3.12.4-linux-x86_64-gnu/../x", "uv:cpython-3.12-linux-x86_64-gnu"]
)  # fmt: skip
def test_a_name_leads_out_of_no_folder(named: str, tmp_path: Path) -> None:
    """Anything else is a path, which is not for uv."""
    pythons = FetchedPythons(str(tmp_path))
    assert (pythons.name_of(named), pythons.path(named)) == (None, None)


@pytest.mark.slow
def test_uv_fetches_what_is_not_there(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once; then it is reported under the same name, so that the next run makes the same choice."""
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(make_fetchable_python(tmp_path / "mirror")))
    python = f"uv:{name_of_python()}"
    Builder(site.store, site.blobs, site.spec(python=python), fetches_python=True).build()
    assert site.store.python(KEY) is not None
    pythons = FetchedPythons(site.store.cache)
    known = str(tmp_path / "known.json")
    assert [one.path for one in find_pythons(known, None, pythons) if one.path.startswith("uv:")] == [python]
    assert python not in [one.path for one in find_pythons(known, "/usr/bin/python3", pythons)]
    monkeypatch.delenv("UV_PYTHON_DOWNLOADS_JSON_URL")
    Builder(site.store, site.blobs, site.spec("d" * 64, python)).build()


@pytest.mark.slow
def test_uv_fetches_nothing_without_leave(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the option."""
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(make_fetchable_python(tmp_path / "mirror")))
    with pytest.raises(BuildError, match="may not be fetched\n    next: allow 'downloads'"):
        Builder(site.store, site.blobs, site.spec(python=f"uv:{name_of_python()}")).build()
    assert not list(FetchedPythons(site.store.cache).all())


@pytest.mark.slow
def test_a_python_that_was_altered_is_not_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uv checks its hash; its words are told, with what to do. Nothing of it is used later."""
    listed = make_fetchable_python(tmp_path / "mirror", is_altered=True)
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(listed))
    spec = site.spec(python=f"uv:{name_of_python()}")
    with pytest.raises(BuildError, match=r"(?i)hash mismatch[\s\S]*next: see whether the host reaches"):
        Builder(site.store, site.blobs, spec, fetches_python=True).build()
    assert not list(FetchedPythons(site.store.cache).all())
    assert not site.parts()
