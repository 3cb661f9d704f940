"""The bundle: it has the same bytes for the same files, is cheap if nothing has changed, and runs on any Python from
3.8 on.
"""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import launcher
from launcher.bootstrap import bundle as agent_bundle
from launcher.bootstrap.bundle import Bundle, build_bundle, unpack
from launcher.errors import LauncherError
from tests.requirements import need_python

#: What a host does with the family, at least: read YAML, resolve, compose, and let Hydra discover its plugins.
_USE = """
import sys
bundle = sys.argv[1]
sys.path[:0] = [bundle, bundle + "/_vendor", bundle + "/_vendor/family"]
import launcher, remote_agent
import cloudpickle, omegaconf, yaml
assert cloudpickle.loads(cloudpickle.dumps(lambda: 3))() == 3
config = omegaconf.OmegaConf.create(yaml.safe_load("a: 1\\nb: ${a}"))
assert config.b == 1
import hydra
from hydra.core.plugins import Plugins
from hydra.version import Version, base_at_least, setbase
setbase("1.3")
assert base_at_least("1.2") and Version("1.10") > Version("1.9.2") and Version("1.3") == Version("1.3.0")
assert (Version("1.3.8").major, Version("1.3.8").minor) == (1, 3)
import warnings
warnings.simplefilter("error")
Plugins.instance()
with hydra.initialize(version_base=None):
    composed = hydra.compose(overrides=["+lr=0.1"], return_hydra_config=True)
assert composed.lr == 0.1 and composed.hydra.job.name
for module in list(sys.modules.values()):
    file = getattr(module, "__file__", None) or ""
    assert "site-packages" not in file and "dist-packages" not in file, file
print("ok")
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hydra-remote-launcher" / "bundles"


def names(bundle: Bundle) -> list[str]:
    """Return the names of its files."""
    return zipfile.ZipFile(io.BytesIO(bundle.data)).namelist()


def test_has_the_agent_and_what_hosts_lack(cache: Path) -> None:
    """Of the controller it has only the table of contents. It has no tests, no compiled code and no bytecode."""
    inside = names(build_bundle())
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"_vendor", "launcher", "remote_agent", "stage0_unpack.py"}
    assert [name for name in inside if name.startswith("launcher/")] == ["launcher/__init__.py"]
    assert {name.split("/")[2] for name in inside if name.startswith("_vendor/family/")} == {
        "antlr4",
        "hydra",
        "omegaconf",
        "yaml",
    }
    assert {"remote_agent/__main__.py", "remote_agent/protocol/constants.py", "_vendor/cloudpickle/__init__.py"} <= set(
        inside
    )
    assert "_vendor/family/hydra/conf/hydra/job_logging/default.yaml" in inside
    assert all(name.endswith((".py", ".yaml")) for name in inside)
    assert not [name for name in inside if "test_utils" in name or "pytest" in name]


def test_is_the_same_for_the_same_files(cache: Path) -> None:
    """It is built twice from scratch. A host recognises it by its hash."""
    first = build_bundle()
    shutil.rmtree(cache)
    second = build_bundle()
    assert (first.sha256, first.data) == (second.sha256, second.data)
    assert first.size == len(first.data)


def test_comes_from_the_cache_without_a_file_being_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time, nothing is zipped."""
    first = build_bundle()
    monkeypatch.setattr(agent_bundle, "_zip", lambda sources: pytest.fail("zipped again"))
    second = build_bundle()
    assert (second.sha256, second.data) == (first.sha256, first.data)


def test_is_built_again_when_a_file_has_changed(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change shows in a file's size and time."""
    first = build_bundle()
    copy = tmp_path / "remote_agent"
    shutil.copytree(Path(agent_bundle.remote_agent.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "wire.py").open("a") as file:
        file.write("# changed\n")
    monkeypatch.setattr(agent_bundle.remote_agent, "__file__", str(copy / "__init__.py"))
    assert build_bundle().sha256 != first.sha256


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"PK"])
def test_a_damaged_cache_is_repaired(cache: Path, damage: bytes) -> None:
    """A zip with another size is not used. One that turns out to be wrong later is made again."""
    first = build_bundle()
    (cached,) = cache.glob("*.zip")
    cached.write_bytes(damage)
    assert build_bundle().data == first.data
    later = build_bundle()
    cached.write_bytes(b"x" * later.size)
    assert later.data == first.data
    cached.unlink()
    assert later.data == first.data


@pytest.mark.slow
@pytest.mark.parametrize("index", ["", "[]", "{}", '{"sha256": 5, "size": 1}', '{"sha256": "../x", "size": 1}'])
def test_survives_a_damaged_index(cache: Path, index: str) -> None:
    """It is built again."""
    first = build_bundle()
    (path,) = cache.glob("*.json")
    path.write_text(index)
    assert build_bundle().sha256 == first.sha256
    assert json.loads(path.read_text())["sha256"] == first.sha256


def test_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a read-only cache it only takes longer."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    bundle = build_bundle()
    assert len(bundle.data) == bundle.size


@pytest.mark.slow
def test_keeps_few_old_ones(cache: Path) -> None:
    """Otherwise every change of a file would leave half a mebibyte."""
    build_bundle()
    for number in range(20):
        old = cache / f"{number}.zip"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    (cache / next(cache.glob("*.json")).name).unlink()
    build_bundle()
    assert len(list(cache.iterdir())) <= 8


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package."""
    monkeypatch.setattr(agent_bundle, "family_of", lambda omegaconf: ["no_such_package_here"])
    with pytest.raises(LauncherError, match="no_such_package_here"):
        build_bundle()


def test_is_private_when_unpacked(cache: Path, tmp_path: Path) -> None:
    """Unpacking twice, or at the same time, also works."""
    bundle = build_bundle()
    umask = os.umask(0)
    try:
        folder = unpack(bundle, tmp_path / "agents")
    finally:
        os.umask(umask)
    assert unpack(bundle, tmp_path / "agents") == folder == tmp_path / "agents" / bundle.sha256
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.rglob("*.py"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert [path.name for path in folder.parent.iterdir()] == [bundle.sha256]


@pytest.mark.slow
def test_the_agent_is_written_in_the_grammar_of_3_8(cache: Path) -> None:
    """This checks its own files. The next test runs those of others."""
    archive = zipfile.ZipFile(io.BytesIO(build_bundle().data))
    for name in archive.namelist():
        if not name.startswith("_vendor/") and name.endswith(".py"):
            ast.parse(archive.read(name).decode(), name, feature_version=(3, 8))


@pytest.mark.slow
@pytest.mark.pythons
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_runs_on_a_python_without_packages(cache: Path, tmp_path: Path, version: str) -> None:
    """cloudpickle, omegaconf, PyYAML, and Hydra with its plugins all come from the bundle."""
    folder = unpack(build_bundle(), tmp_path)
    answer = subprocess.run(
        [need_python(version), "-I", "-S", "-c", _USE, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.strip() == "ok", answer.stderr


@pytest.mark.slow
def test_uses_the_environments_packaging_if_there_is_one(cache: Path, tmp_path: Path) -> None:
    """The replacement never hides a package."""
    folder = unpack(build_bundle(), tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1] + '/_vendor/family'); import packaging.version, hydra.version; "
        "print(hydra.version.Version is packaging.version.Version)"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "True", answer.stderr


def test_importing_the_launcher_is_cheap() -> None:
    """It imports neither fabric nor Hydra nor the modules that make the bundle."""
    script = "import launcher, sys; print(*sorted({'fabric', 'paramiko', 'hydra', 'omegaconf', 'zipfile'} & set(sys.modules)))"
    folder = Path(launcher.__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, timeout=60)
    assert (answer.returncode, answer.stdout.strip()) == (0, "")
