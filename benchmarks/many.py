"""Many hosts with one controller, some dead, some with links that drop: `python -m benchmarks.many --hosts 300`.

Rule: it runs in its own network namespace, where one sshd serves every address of 127.0.0.0/8 as a host. The soft limit
of open files is the usual 1,024. Half of the dead hosts refuse connections, and the other half do not answer. The last
line is JSON.

    first       seconds from the call to the first JobReturn
    seconds     to the last one; in between, every living host is ready and every dead one is reported
    ready, unusable, completed, threads, descriptors, peak_rss
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.cutting import CuttingRelay

_PORT = 2222
_DEAD_PORT = 2223
#: After how many bytes from the host a link drops: in the handshake, in the login, and soon after it.
_DROPS = (60, 2500, 4500)


def main() -> None:
    """Enter a namespace, start the host there, run, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many")
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--dead", type=int, default=40)
    parser.add_argument("--flapping", type=int, default=10)
    parser.add_argument("--open-files", type=int, default=1024, help="the soft limit (default 1024)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        command = ["unshare", "--net", "--fork", "--kill-child", sys.executable, "-m", "benchmarks.many", *sys.argv[1:]]
        sys.exit(subprocess.run([*command, "--inside"], check=False).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = Path(tempfile.mkdtemp(prefix="launcher-many-"))
    server = _start_sshd(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(arguments.open_files, soft), hard))
    try:
        print(json.dumps(_run(folder, arguments.hosts, arguments.dead, arguments.flapping)), flush=True)
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _start_sshd(folder: Path) -> subprocess.Popen[bytes]:
    for name in ("host_key", "identity"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "identity.pub", folder / "authorized_keys")
    # An empty home, so that 300 logins at once do not wait for a lock in this account's profile.
    (folder / "home").mkdir()
    (folder / "sshd_config").write_text(
        f"Port {_PORT}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nPidFile {folder}/sshd.pid\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 1000\n"
        f"SetEnv HOME={folder}/home\n"
    )
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"many {key}\n")
    # Nothing answers there.
    subprocess.run(["iptables", "-w", "-A", "INPUT", "-d", "127.9.0.0/16", "-j", "DROP"], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = (folder / "sshd.log").open("wb")
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
    )
    for _ in range(200):
        if (folder / "sshd.pid").exists():
            return server
        time.sleep(0.05)
    raise SystemExit(f"sshd did not come up: {(folder / 'sshd.log').read_text()}")


def _run(folder: Path, count: int, dead: int, flapping: int) -> dict[str, object]:
    shutil.copytree(Path(__file__).parent / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(folder / "app"))
    for name in ("state", "cache"):
        os.environ[f"XDG_{name.upper()}_HOME"] = str(folder / name)
    os.chdir(folder / "app")
    from bench_app import gated

    import launcher
    from launcher import events
    from launcher.hosts.inventory import load_hosts

    relays = [CuttingRelay(_PORT) for _ in range(flapping)]
    for relay in relays:
        relay.cut_new_after(*_DROPS)
        relay.__enter__()
    condemned: set[str] = set()
    hosts = load_hosts(_hosts(folder, count, dead, [relay.port for relay in relays], condemned), "many")
    gate = folder / "gate"
    seen = {"ready": set(), "unusable": set()}
    first: list[float] = []
    reasons: dict[str, str] = {}
    most = {"threads": 0, "descriptors": 0}

    def observe(event: events.Event) -> None:
        if isinstance(event, events.JobReturned) and not first:
            first.append(time.perf_counter() - begun)
            print(f"first JobReturn after {first[0]:.2f} s", file=sys.stderr, flush=True)
        if isinstance(event, events.HostReady):
            seen["ready"].add(event.host)
        elif isinstance(event, events.HostUnusable):
            seen["unusable"].add(event.host)
            reasons[event.host] = f"{event.phase}: {event.why}"
        else:
            return
        most["threads"] = max(most["threads"], threading.active_count())
        most["descriptors"] = max(most["descriptors"], len(os.listdir("/proc/self/fd")))
        if len(seen["ready"] | seen["unusable"]) == count:
            gate.touch()

    configs = [{"number": number, "gate": str(gate)} for number in range(2 * count)]
    begun = time.perf_counter()
    returns = launcher.multirun(gated, configs, hosts=hosts, folder=folder / "sweep", observers=[observe])
    seconds = time.perf_counter() - begun
    for relay in relays:
        relay.__exit__(None, None, None)
    failed = [str(one.error) for one in returns if one.error is not None]
    return {
        "hosts": count,
        "first": first[0],
        "seconds": seconds,
        "ready": len(seen["ready"]),
        "unusable": len(seen["unusable"]),
        "completed": len(returns) - len(failed),
        "failed": failed[:3],
        # A dead host only needs to be reported as one that did not answer.
        "reasons": [f"{host}: {why}"[:300] for host, why in reasons.items() if host not in condemned],
        "cut": sum(relay.connections > 1 for relay in relays),
        **most,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _hosts(folder: Path, count: int, dead: int, relays: list[int], condemned: set[str]) -> dict[str, dict[str, object]]:
    config = folder / "ssh_config"
    lines = []
    made: dict[str, dict[str, object]] = {}
    stride = count // max(1, dead)
    for number in range(count):
        port, second = _PORT, 1
        # Dead and flapping hosts are spread among the others. The first two hosts are neither.
        if number % stride == min(2, stride - 1) and dead > 0:
            dead -= 1
            condemned.add(f"h{number}")
            port, second = (_DEAD_PORT, 1) if dead % 2 else (_PORT, 9)
        elif relays and number % 3 == 1:
            port = relays.pop()
        address = "127.0.0.1" if port > _DEAD_PORT else f"127.{second}.{number // 200}.{number % 200 + 1}"
        lines.append(f"Host h{number}\n  HostName {address}\n  Port {port}\n")
        made[f"h{number}"] = {
            "ssh_config": str(config),
            "workdir": str(folder / "work"),
            "slots": 1,
            "python": sys.executable,
        }
    lines.append(
        f"Host *\n  HostKeyAlias many\n  IdentityFile {folder}/identity\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n"
    )
    config.write_text("".join(lines))
    return made


if __name__ == "__main__":
    main()
