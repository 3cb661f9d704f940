"""The image of docker/Dockerfile, which is really built: what such a host has, and what it does not have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.image import ImageHost, running_image_host
from tests.remote_agent.agents import wait_until

pytestmark = [pytest.mark.image, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageHost]:
    """A running host."""
    with running_image_host(tmp_path_factory.mktemp("image") / "host") as running:
        yield running


#: A script as a user writes one; the hook leaves a mark that only the job's own process can see.
APP = """
import json, os, platform, sys
import launcher

class Seen:
    def on_job_start(self, config, **kwargs):
        os.environ["SEEN_ON_JOB_START"] = str(config.number)

def where(config):
    seen = os.environ.get("SEEN_ON_JOB_START") == str(config.number)
    return [config.number, platform.node(), seen, os.path.exists(config.tree)]

if __name__ == "__main__":
    from launcher.hosts.host_spec import HostSpec

    host = HostSpec("there", sys.argv[1], ssh_config=sys.argv[2])
    configs = [{"number": number, "tree": sys.argv[3]} for number in (1, 2)]
    returns = launcher.multirun(where, configs, hosts=[host], callbacks=[Seen()], folder="sweep")
    print(json.dumps([job_return.return_value for job_return in returns]))
"""


def ssh(host: ImageHost, command: str) -> subprocess.CompletedProcess[str]:
    """Run OpenSSH's own client as the image's user."""
    return subprocess.run(
        ["ssh", "-F", str(host.ssh_config), host.name, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_lets_the_user_in_by_key_with_a_verified_host_key(host: ImageHost) -> None:
    """The key in /authorized_keys can log in to runner's account, and the host key is the one on the host's disk."""
    answer = ssh(host, "id -un && pwd")
    assert answer.stdout.split() == ["runner", "/home/runner"], answer.stderr


def test_runs_a_sweep_with_hooks_there(host: ImageHost, tmp_path: Path) -> None:
    """Nothing is installed on the host, the code is sent, the hook fires there, and every JobReturn comes back."""
    (tmp_path / "app.py").write_text(APP)
    ran = subprocess.run(
        [sys.executable, "app.py", host.name, str(host.ssh_config), str(ROOT)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == [[1, host.name, True, False], [2, host.name, True, False]]


def test_makes_its_own_host_key(host: ImageHost) -> None:
    """The image has no key, because all its hosts would share it."""
    baked = list(host.rootfs.glob("etc/ssh/ssh_host_*")) + list(host.rootfs.glob("etc/ssh/host_keys/*"))
    assert baked == []
    assert host.path("/etc/ssh/host_keys/ssh_host_ed25519_key").exists()


def test_has_a_bare_python(host: ImageHost) -> None:
    """It has a python3 with only the standard library. The launcher brings what it needs."""
    answer = ssh(
        host, "python3 -c 'import sys, json, select, hashlib, zipimport; print(sys.version_info[:2] >= (3, 8))'"
    )
    assert answer.stdout.strip() == "True", answer.stderr
    listed = ssh(host, "ls /usr/lib/python3/dist-packages /usr/local/lib/python3*/dist-packages 2>/dev/null")
    packages = [name for name in listed.stdout.split() if not name.startswith("/") and name != "README"]
    assert packages == []


def test_shares_nothing_with_the_controller(host: ImageHost, tmp_path: Path) -> None:
    """The project's tree, this test's files and the controller's processes do not exist there."""
    answer = ssh(host, f"ls -d {ROOT / 'launcher'} {tmp_path} 2>/dev/null; ls /tmp; ls -d /proc/[0-9]* | wc -l")
    lines = answer.stdout.split()
    assert len(lines) == 1, answer.stdout
    assert int(lines[0]) < 20


def test_refuses_passwords_and_root(host: ImageHost) -> None:
    """Only runner can log in, and only with a key."""
    offered = subprocess.run(
        ["ssh", "-F", str(host.ssh_config), "-o", "PreferredAuthentications=none", host.name, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Permission denied (publickey)" in offered.stderr
    as_root = subprocess.run(
        ["ssh", "-F", str(host.ssh_config), "-l", "root", host.name, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert as_root.returncode == 255


def test_power_cut_leaves_the_disk_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After `stop` no process is left.

    After the next start the file is there, /tmp is empty, and the boot id differs.
    """
    with running_image_host(tmp_path_factory.mktemp("power") / "host") as host:
        boot = host.path("/proc/sys/kernel/random/boot_id").read_text()
        started = ssh(
            host, "echo kept > kept; echo lost > /tmp/lost; setsid sleep 600 </dev/null >/dev/null 2>&1 & echo ok"
        )
        assert started.stdout.strip() == "ok", started.stderr
        wait_until(lambda: any(re.search(r"sleep 600", command) for command in host.processes()), "the sleeper to run")
        init = host.pid
        key = host.path("/etc/ssh/host_keys/ssh_host_ed25519_key.pub").read_text()
        host.power_cut()
        assert not Path(f"/proc/{init}").exists()
        host.start()
        assert ssh(host, "cat kept; ls /tmp").stdout.split() == ["kept"]
        assert not any(re.search(r"sleep 600", command) for command in host.processes())
        assert host.path("/proc/sys/kernel/random/boot_id").read_text() != boot
        assert host.path("/etc/ssh/host_keys/ssh_host_ed25519_key.pub").read_text() == key


def test_compose_offers_two_hosts_on_loopback_only() -> None:
    """compose.yaml builds this Dockerfile twice and publishes no port beyond 127.0.0.1."""
    import yaml

    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    services = compose["services"]
    assert len(services) == 2
    for service in services.values():
        assert service["build"] == "."
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(set(ports)) == 2
