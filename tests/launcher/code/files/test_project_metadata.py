"""The metadata of a project that is installed in place is sent with its code. That of other packages is not sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.code.files.project_metadata import FOLDER, metadata_of
from launcher.code.files.snapshot import Snapshot, take

_METADATA = "Metadata-Version: 2.1\nName: field-mypkg\nVersion: 1.2.3\n"
_ENTRY_POINTS = "[field.models]\nsmall = mypkg.models:Small\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package in a src layout."""
    root = tmp_path / "my project"
    (root / "src" / "mypkg").mkdir(parents=True)
    (root / "src" / "mypkg" / "__init__.py").write_text("")
    return root


def _install(site: Path, source: str, name: str = "field_mypkg-1.2.3.dist-info", **told: object) -> Path:
    """Write what pip writes for an editable install."""
    folder = site / name
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(_METADATA)
    (folder / "entry_points.txt").write_text(_ENTRY_POINTS)
    (folder / "RECORD").write_text("")
    (folder / "direct_url.json").write_text(json.dumps({"url": source, "dir_info": {"editable": True}, **told}))
    return folder


def test_the_metadata_of_an_editable_install_is_sent(project: Path, tmp_path: Path) -> None:
    """Name, version and entry points are sent. The origin of the install and the list of its files are not."""
    _install(tmp_path / "site", project.as_uri())
    assert dict(metadata_of(project, (), [str(tmp_path / "site")])) == {
        f"{FOLDER}/field_mypkg-1.2.3.dist-info/METADATA": _METADATA.encode(),
        f"{FOLDER}/field_mypkg-1.2.3.dist-info/entry_points.txt": _ENTRY_POINTS.encode(),
    }


def test_the_metadata_of_an_egg_info_is_sent(project: Path) -> None:
    """`src/mypkg.egg-info`, which git ignores, is found. If it is part of the code anyway, it is not sent twice."""
    egg = project / "src" / "mypkg.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text(_METADATA)
    (egg / "SOURCES.txt").write_text("")
    paths = [str(project / "src")]
    assert dict(metadata_of(project, (), paths)) == {f"{FOLDER}/mypkg.egg-info/PKG-INFO": _METADATA.encode()}
    assert metadata_of(project, {"src/mypkg.egg-info/PKG-INFO"}, paths) == []


def test_a_part_of_a_repository_has_its_own_metadata(project: Path, tmp_path: Path) -> None:
    """This is one of several projects in a repository; and, without git, a project whose code is in a folder within it."""
    _install(tmp_path / "site", project.as_uri())
    assert len(metadata_of(tmp_path, (), [str(tmp_path / "site")])) == 2
    assert len(metadata_of(project / "src", (), [str(tmp_path / "site")])) == 2


def test_the_first_on_the_path_counts(project: Path, tmp_path: Path) -> None:
    """`importlib.metadata` uses the same one."""
    _install(tmp_path / "first", project.as_uri())
    (_install(tmp_path / "second", project.as_uri()) / "METADATA").write_text("another")
    found = dict(metadata_of(project, (), [str(tmp_path / "first"), str(tmp_path / "second")]))
    assert found[f"{FOLDER}/field_mypkg-1.2.3.dist-info/METADATA"] == _METADATA.encode()


@pytest.mark.parametrize(
    "told",
    [
        {"url": "file:///elsewhere"},
        {"url": "https://host.invalid/it"},
        {"url": 3},
        {"dir_info": {}},
        {"dir_info": {"editable": False}},
        {"dir_info": []},
    ],
)
def test_metadata_of_other_packages_is_not_sent(project: Path, tmp_path: Path, told: dict[str, object]) -> None:
    """These are other editable installs, ordinary ones, and unreadable ones."""
    _install(tmp_path / "site", project.as_uri(), **told)
    assert metadata_of(project, (), [str(tmp_path / "site"), "/nowhere"]) == []


def test_damaged_installs_are_skipped(project: Path, tmp_path: Path) -> None:
    """They have an invalid `direct_url.json`, or none."""
    (_install(tmp_path / "site", project.as_uri()) / "direct_url.json").write_text("{")
    (_install(tmp_path / "site", project.as_uri(), "b-1.dist-info") / "direct_url.json").unlink()
    assert metadata_of(project, (), [str(tmp_path / "site")]) == []


def test_a_snapshot_has_the_metadata(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in a folder that comes last on the path there. It is also in a resumed run after the install is gone."""
    site = _install(tmp_path / "site", project.as_uri()).parent
    monkeypatch.syspath_prepend(str(site))
    snapshot = take(project, root=project)
    (entry,) = [one for one in snapshot.files if one.path.endswith("/METADATA")]
    assert snapshot.sys_path(project / "src", [str(project / "src")]) == ["src", FOLDER]
    assert snapshot.read(entry.sha256) == _METADATA.encode()
    again = Snapshot.of_manifest(project, snapshot.manifest_bytes(), "", dirty=False)
    assert again.read(entry.sha256) == _METADATA.encode()
    assert again.sys_path(project / "src", [str(project / "src")]) == ["src", FOLDER]
