"""Which uv a host gets."""

from __future__ import annotations

import hashlib
import platform
import zipfile
from pathlib import Path

import pytest

from launcher.environments import host_uv as module
from launcher.environments.host_uv import uv_for
from launcher.environments.uv import uv_program, uv_version
from launcher.errors import PackagesError
from remote_agent.protocol.environment_spec import HostFacts

HOST = HostFacts(platform.system(), platform.machine(), "6.1", "glibc 2.36", "", 0, [])


def test_our_own_where_it_runs() -> None:
    """The program that resolved, by its content."""
    path, sha256 = uv_for(HOST)
    assert path == Path(uv_program()).resolve()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert uv_for(HOST) == (path, sha256)


def test_the_static_one_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the wheel of its platform, whose name and content the lock has; a wheel without one is refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel = tmp_path / "uv-1-py3-none-musllinux_1_1_riscv64.whl"

    def lock(what: str, command: list[str], **more: object) -> str:
        assert command[command.index("--python-platform") + 1] == "riscv64-unknown-linux-musl"
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return (
            'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "uv"\nversion = "1"\n'
            f'wheels = [{{url = "{wheel.as_uri()}", hashes = {{sha256 = "{sha256}"}}}}]\n'
        )

    monkeypatch.setattr(module, "run_uv", lock)
    host = HOST._replace(system="Linux", machine="riscv64", libc="musl 1.2")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv-1.data/other", b"")
    with pytest.raises(PackagesError, match="has no uv"):
        uv_for(host)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv-1.data/scripts/uv", b"static")
    path, sha256 = uv_for(host)
    assert path.read_bytes() == b"static"
    assert sha256 == hashlib.sha256(b"static").hexdigest()
    assert uv_version() in path.name
