"""What a Python of a host gets of a lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.environments.lock import Lock
from launcher.environments.select import DoesNotFit, choose
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts, PythonFacts

HASH = "0" * 64
LINUX = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, [])
CP311 = PythonFacts("/usr/bin/python3", "3.11.2", "cpython", "cp311", 64)


def lock_of(*wheels: str, more: str = "", python: str = ">=3.8") -> Lock:
    """A lock of one package with these wheels."""
    listed = ", ".join(
        f'{{url = "https://index.test/{name}", size = 1, hashes = {{sha256 = "{HASH}"}}}}' for name in wheels
    )
    text = f'lock-version = "1.0"\ncreated-by = "t"\nrequires-python = "{python}"\n[[packages]]\nname = "one"\nversion = "1.0"\n'
    return Lock("/p/pylock.toml", f"{text}wheels = [{listed}]\n{more}", is_resolved=True)


ALL = [
    "one-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "one-1.0-cp311-cp311-manylinux_2_39_x86_64.whl",
    "one-1.0-cp311-cp311-musllinux_1_1_x86_64.whl",
    "one-1.0-cp311-cp311-macosx_11_0_arm64.whl",
    "one-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl",
    "one-1.0-cp38-abi3-manylinux_2_17_aarch64.whl",
    "one-1.0-cp311-cp311-manylinux_2_17_i686.whl",
    "one-1.0-cp39-cp39-manylinux1_x86_64.whl",
]


@pytest.mark.parametrize(
    ("facts", "python", "chosen"),
    [
        (LINUX, CP311, ALL[0]),
        (LINUX._replace(libc="glibc 2.39"), CP311, ALL[1]),
        (LINUX._replace(libc="musl 1.2"), CP311, ALL[2]),
        (LINUX._replace(system="Darwin", machine="arm64", libc="macos 14.1"), CP311, ALL[3]),
        (LINUX, CP311._replace(version="3.13.0", abi="cp313t"), ALL[4]),
        (LINUX._replace(machine="aarch64"), CP311._replace(version="3.12.1", abi="cp312"), ALL[5]),
        (LINUX, CP311._replace(bits=32), ALL[6]),
        (LINUX._replace(libc="glibc 2.12"), CP311._replace(version="3.9.1", abi="cp39"), ALL[7]),
    ],
)
def test_the_wheel_that_fits(facts: HostFacts, python: PythonFacts, chosen: str) -> None:
    """By glibc, musl, macOS, threading, stable ABI, bits and older names of platforms."""
    (one,) = choose(lock_of(*ALL), facts, python)
    assert (one.file, one.sha256, one.version, one.is_wheel) == (chosen, HASH, "1.0", True)


def test_nothing_that_fits_is_told() -> None:
    """With the package, or with the Python that is wanted."""
    with pytest.raises(DoesNotFit, match="one"):
        choose(lock_of("one-1.0-cp311-cp311-win_amd64.whl"), LINUX, CP311)
    with pytest.raises(DoesNotFit, match=r"3\.12"):
        choose(lock_of(ALL[0], python=">=3.12"), LINUX, CP311)


def test_an_sdist_is_chosen_where_no_wheel_fits() -> None:
    """It is built here."""
    sdist = f'sdist = {{url = "https://index.test/one-1.0.tar.gz", hashes = {{sha256 = "{HASH}"}}}}\n'
    (one,) = choose(lock_of("one-1.0-cp311-cp311-win_amd64.whl", more=sdist), LINUX, CP311)
    assert (one.file, one.is_wheel, one.size) == ("one-1.0.tar.gz", False, None)


def test_a_relative_path_is_below_the_lock(tmp_path: Path) -> None:
    """As pylock.toml has it."""
    text = lock_of(ALL[0]).text.replace(f'url = "https://index.test/{ALL[0]}"', f'path = "wheels/{ALL[0]}"')
    (one,) = choose(Lock(str(tmp_path / "pylock.toml"), text, is_resolved=True), LINUX, CP311)
    assert one.url == (tmp_path / "wheels" / ALL[0]).as_uri()


def test_a_folder_of_an_archive_is_kept() -> None:
    """It says where in the archive the package lies; one outside it is refused."""

    def archive(folder: str) -> Lock:
        text = lock_of().text.replace("wheels = []\n", "")
        said = f'{{url = "https://me:pass@h.test/r.zip", subdirectory = "{folder}", hashes = {{sha256 = "{HASH}"}}}}'
        return Lock("/p/pylock.toml", f"{text}archive = {said}\n", is_resolved=True)

    (one,) = choose(archive("python/one"), LINUX, CP311)
    assert (one.file, one.folder, one.is_wheel) == ("r.zip", "python/one", False)
    for wrong in ("../one", "/one"):
        with pytest.raises(PackagesError, match="is no folder of") as refused:
            choose(archive(wrong), LINUX, CP311)
        assert "pass" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no toml", "is not a valid pylock.toml"),
        ('lock-version = "9.0"\n', "is not a valid pylock.toml"),
        (
            'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "one"\nvcs = {type = "hg", url = "https://g.test/x", commit-id = "a"}\n',
            "one comes from hg",
        ),
        (lock_of(ALL[0]).text.replace("sha256", "md5"), "no sha256 of one"),
    ],
)
def test_what_cannot_be_used_is_refused(text: str, told: str) -> None:
    """By name."""
    with pytest.raises(PackagesError, match=told):
        choose(Lock("/p/pylock.toml", text, is_resolved=True), LINUX, CP311)
