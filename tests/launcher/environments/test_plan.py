"""What a host installs, its key, and which of its Pythons is taken."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from launcher.environments import plan as module
from launcher.environments.lock import Lock, keep_compiled
from launcher.environments.plan import EnvironmentSource
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts
from tests.packages import make_sdist, make_wheel

PYTHONS = [
    PythonFacts(f"/usr/bin/python3.{minor}", f"3.{minor}.1", "cpython", f"cp3{minor}", 64).to_json()
    for minor in (8, 13, 11)
]
HOST = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, PYTHONS)


@pytest.fixture(autouse=True)
def _some_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_bytes(b"uv")
    monkeypatch.setattr(module, "uv_for", lambda facts, steps: (uv, hashlib.sha256(b"uv").hexdigest()))


def lock_of(folder: Path, *, python: str = ">=3.8", comment: str = "", content: str = "a") -> Lock:
    """A lock of one package."""
    wheel = make_wheel(folder / content, "one", files={"one.py": content})
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    text = (
        f'lock-version = "1.0"\ncreated-by = "t"\nrequires-python = "{python}"\n{comment}[[packages]]\nname = "one"\nversion = "1.0"\n'
        f'wheels = [{{url = "{wheel.as_uri()}", hashes = {{sha256 = "{sha256}"}}}}]\n'
    )
    return Lock("/p/pylock.toml", text, is_resolved=True)


def test_the_same_minor_version_first(tmp_path: Path) -> None:
    """What is pickled by value needs it; else the newest that fits."""
    assert EnvironmentSource(lock_of(tmp_path), (3, 11), None).plan(HOST).spec.python == "/usr/bin/python3.11"
    assert EnvironmentSource(lock_of(tmp_path), (3, 99), None).plan(HOST).spec.python == "/usr/bin/python3.13"
    old = lock_of(tmp_path, python="<3.9")
    assert EnvironmentSource(old, (3, 11), None).plan(HOST).spec.python == "/usr/bin/python3.8"


def test_no_python_that_fits(tmp_path: Path) -> None:
    """Each that is there is named, with what is wrong and what to do."""
    with pytest.raises(PackagesError, match=r"3\.8\.1 \(/usr/bin/python3\.8\)[\s\S]*next: install a Python"):
        EnvironmentSource(lock_of(tmp_path, python=">=3.14"), (3, 11), None).plan(HOST)
    with pytest.raises(PackagesError, match="no Python was found"):
        EnvironmentSource(lock_of(tmp_path), (3, 11), None).plan(HOST._replace(pythons=[]))
    with pytest.raises(PackagesError, match=r"'/opt/python3' is not there[\s\S]*--python"):
        EnvironmentSource(lock_of(tmp_path), (3, 11), None).plan(HOST._replace(pythons=[]), "/opt/python3")


def test_a_python_that_uv_may_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if none there fits, and the user allows it; the error names the option. When it is there, the choice is the same."""
    fetched = PythonFacts("uv:cpython-3.14.2-linux-x86_64-gnu", "3.14.2", "cpython", "cp314", 64)
    url = "https://pythons.example.org/3.14.2.tar.gz"
    asked: list[HostFacts] = []

    def known(facts: HostFacts, steps: object) -> list[tuple[PythonFacts, str]]:
        asked.append(facts)
        return [(fetched, url)]

    monkeypatch.setattr(module, "fetchable_pythons", known)
    lock = lock_of(tmp_path, python=">=3.14")
    EnvironmentSource(lock_of(tmp_path), (3, 11), None).plan(HOST, None, True)
    assert not asked
    with pytest.raises(PackagesError, match=r"or allow `downloads` for this host"):
        EnvironmentSource(lock, (3, 11), None).plan(HOST)
    with pytest.raises(PackagesError, match=r"fits no Python there"):
        EnvironmentSource(lock, (3, 11), None).plan(HOST, None, ("https://packages.example.org/",))
    with pytest.raises(PackagesError, match="is not there"):
        EnvironmentSource(lock, (3, 11), None).plan(HOST._replace(pythons=[]), "/opt/python3", True)
    first = EnvironmentSource(lock, (3, 11), None).plan(HOST, None, True)
    assert first.spec.python == fetched.path
    assert EnvironmentSource(lock, (3, 11), None).plan(HOST, None, ("https://pythons.example.org/",)).spec == first.spec
    there = HOST._replace(pythons=[*PYTHONS, fetched.to_json()])
    assert EnvironmentSource(lock, (3, 11), None).plan(there).spec == first.spec


def test_the_key_is_of_what_makes_a_difference(tmp_path: Path) -> None:
    """Not of the text of a lock, nor of free space; of contents, Python and platform."""

    def key(lock: Lock, facts: HostFacts = HOST) -> str:
        return EnvironmentSource(lock, (3, 11), None).plan(facts).spec.key

    first = key(lock_of(tmp_path))
    assert key(lock_of(tmp_path, comment="# written anew\n")) == first
    assert key(lock_of(tmp_path), HOST._replace(free=5)) == first
    newer = [{**one, "version": one["version"].replace(".1", ".2")} for one in PYTHONS]
    others = [
        key(lock_of(tmp_path, content="b")),
        key(lock_of(tmp_path), HOST._replace(pythons=[{**one, "path": "/opt" + one["path"]} for one in PYTHONS])),
        key(lock_of(tmp_path), HOST._replace(pythons=newer)),
        key(lock_of(tmp_path), HOST._replace(machine="aarch64")),
    ]
    assert len({first, *others}) == 5


def test_what_was_chosen_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run chooses nothing; and a wheel that is needed then comes from where it came from."""
    lock = lock_of(tmp_path, content=str(tmp_path.name))
    first = EnvironmentSource(lock, (3, 11), None).plan(HOST)
    monkeypatch.setattr(module, "choose", lambda *args: pytest.fail("it was chosen again"))
    again = EnvironmentSource(lock, (3, 11), None).plan(HOST)
    assert again.spec == first.spec
    sha256 = first.spec.files[0].sha256
    assert hashlib.sha256(again.fetch(sha256).read_bytes()).hexdigest() == sha256
    with pytest.raises(PackagesError, match="does not belong to its environment"):
        again.fetch("f" * 64)


def test_the_addresses_that_a_host_may_get_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the index of each file: what an earlier version remembered without it is chosen again."""
    index = "https://packages.example.org/simple"
    text = lock_of(tmp_path, content=f"of {tmp_path.name}").text
    text = re.sub(r'url = "[^"]*"', 'url = "https://files.example.org/one-1.0-py3-none-any.whl", size = 9', text)
    text = text.replace('version = "1.0"\nwheels', f'version = "1.0"\nindex = "{index}"\nwheels')
    lock = Lock(str(tmp_path / "pylock.toml"), text, is_resolved=True)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for _ in range(2):
        plan = EnvironmentSource(lock, (3, 11), None).plan(HOST)
        assert list(plan.addresses(True).values()) == ["https://files.example.org/one-1.0-py3-none-any.whl"]
        assert plan.addresses(False) == {}
    (tmp_path / "netrc").write_text("machine packages.example.org login me password word\n")
    assert EnvironmentSource(lock, (3, 11), None).plan(HOST).addresses(True) == {}
    note = EnvironmentSource(lock, (3, 11), None)._note(HOST, downloads=False)
    said = json.loads(note.read_bytes())
    del said["sources"][0]["index"]
    note.write_text(json.dumps(said))
    assert EnvironmentSource(lock, (3, 11), None).plan(HOST).addresses(True) == {}


def test_what_an_earlier_run_resolved_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept with the run that repeats it, too; where there is none, an exact repetition resolves nothing anew."""
    asked: list[str] = []

    def resolved(lock: Lock, facts: HostFacts, python: PythonFacts, kept: Path | None, steps: object) -> Lock:
        asked.append(python.version)
        found = lock_of(tmp_path)
        keep_compiled(found, lock, facts, python, kept)
        return found

    monkeypatch.setattr(module, "compile_for", resolved)
    requirements = Lock("/p/requirements.txt", "one\n", is_resolved=False)
    first, second = tmp_path / "first", tmp_path / "second"
    key = EnvironmentSource(requirements, (3, 11), first).plan(HOST).spec.key
    again = EnvironmentSource(requirements, (3, 11), second, earlier=first, is_exact=True)
    assert again.plan(HOST).spec.key == key
    assert asked == ["3.11.1"]
    assert [path.name for path in second.iterdir()] == [path.name for path in first.iterdir()]
    with pytest.raises(PackagesError, match="for other Pythons or platforms"):
        again.plan(HOST._replace(machine="aarch64"))
    assert EnvironmentSource(requirements, (3, 8), second, earlier=first, is_exact=True).plan(HOST).spec.key == key
    assert asked == ["3.11.1"]


@pytest.mark.parametrize("line", ["./dyn", "-e ./dyn", "dyn @ {folder}", "-e ./outer", "{sdist}"])
def test_where_nothing_may_be_built_no_build_code_is_run(tmp_path: Path, line: str) -> None:
    """Not to learn what is needed either, and not of a folder that another one names."""
    planted = tmp_path / "planted"
    (tmp_path / "dyn").mkdir()
    (tmp_path / "dyn" / "backend.py").write_text(f"open({str(planted)!r}, 'w')\n")
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (tmp_path / "dyn" / "pyproject.toml").write_text(f'[project]\nname = "dyn"\ndynamic = ["version"]\n{build}')
    (tmp_path / "outer").mkdir()
    source = '[tool.uv.sources]\ndyn = {path = "../dyn", editable = true}\n'
    (tmp_path / "outer" / "pyproject.toml").write_text(
        f'[project]\nname = "outer"\nversion = "1"\ndependencies = ["dyn"]\n{source}'
    )
    sdist = make_sdist(tmp_path / "sdists", "tiny", before=f"open({str(planted)!r}, 'w')")
    file = tmp_path / "requirements.txt"
    file.write_text(line.format(folder=(tmp_path / "dyn").as_uri(), sdist=f"tiny @ {sdist.as_uri()}") + "\n")
    lock = Lock(str(file), file.read_text(), is_resolved=False)
    source = EnvironmentSource(lock, (3, 11), None, may_build=False)
    with pytest.raises(PackagesError, match=r"dyn|outer|tiny"):
        source.plan(HOST)
    assert not planted.exists()
