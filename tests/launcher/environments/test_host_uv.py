"""Which uv a host gets."""

from __future__ import annotations

import hashlib
import platform
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from launcher.environments import host_uv as module
from launcher.environments.host_uv import uv_for
from launcher.environments.uv import uv_program, uv_version
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts

HOST = HostFacts(platform.system(), platform.machine(), "6.1", "glibc 2.36", "", 0, [])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Index:
    """An index that has a wheel of uv for one platform, and counts how often it is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, platform_tag: str, member: str) -> None:
        self.wheel = folder / f"uv-1-py3-none-{platform_tag}.whl"
        self.asked: list[str] = []
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr(member, b"static")
        monkeypatch.setattr(module, "run_uv", self.lock)

    def lock(self, what: str, command: list[str], **more: object) -> str:
        """As uv says it."""
        self.asked.append(command[command.index("--python-platform") + 1])
        sha256 = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        return (
            'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "uv"\nversion = "1"\n'
            f'wheels = [{{url = "{self.wheel.as_uri()}", hashes = {{sha256 = "{sha256}"}}}}]\n'
        )


@pytest.mark.parametrize(
    ("machine", "libc", "tag"),
    [
        ("x86_64", "glibc 2.36", "musllinux_1_1_x86_64"),
        ("x86_64", "glibc 2.12", "musllinux_1_1_x86_64"),
        ("x86_64", "musl 1.1", "musllinux_1_1_x86_64"),
        ("x86_64", "", "musllinux_1_1_x86_64"),
        ("aarch64", "glibc 2.31", "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"),
        ("riscv64", "musl 1.2", "musllinux_1_1_riscv64"),
    ],
)
def test_linux_hosts_get_the_static_one(
    machine: str, libc: str, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever C library they have; it is fetched once."""
    index = Index(tmp_path, monkeypatch, tag, "uv-1.data/scripts/uv")
    host = HOST._replace(system="Linux", machine=machine, libc=libc)
    path, sha256 = uv_for(host)
    assert path.read_bytes() == b"static"
    assert sha256 == hashlib.sha256(b"static").hexdigest()
    assert uv_version() in path.name
    assert uv_for(host) == (path, sha256)
    assert index.asked == [f"{machine}-unknown-linux-musl"]


def test_one_that_was_altered_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts run it: what it was when it came is part of its name."""
    index = Index(tmp_path, monkeypatch, "musllinux_1_1_riscv64", "uv-1.data/scripts/uv")
    host = HOST._replace(system="Linux", machine="riscv64", libc="musl 1.2")
    path, _ = uv_for(host)
    path.write_bytes(b"altered")
    assert uv_for(host)[0].read_bytes() == b"static"
    assert len(index.asked) == 2


def test_a_wheel_without_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name."""
    Index(tmp_path, monkeypatch, "musllinux_1_1_riscv64", "uv-1.data/other")
    with pytest.raises(PackagesError, match="has no uv"):
        uv_for(HOST._replace(system="Linux", machine="riscv64", libc="musl 1.2"))


def test_our_own_where_there_is_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host that is certainly alike; an index that does not answer is not asked for each run."""
    asked: list[str] = []

    def fail(what: str, command: list[str], **more: object) -> str:
        asked.append(what)
        raise PackagesError("environment: no index answers")

    monkeypatch.setattr(module, "run_uv", fail)
    monkeypatch.setattr(metadata.Distribution, "read_text", lambda self, name: "Tag: py3-none-manylinux_2_17_x86_64\n")
    path, sha256 = uv_for(HOST)
    assert path == Path(uv_program()).resolve()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert uv_for(HOST) == (path, sha256)
    assert len(asked) == (HOST.system == "Linux")
    for libc in ("glibc 2.12", "musl 1.2", ""):
        with pytest.raises(PackagesError, match="no index answers"):
            uv_for(HOST._replace(system="Linux", libc=libc))
