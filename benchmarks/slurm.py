"""Jobs on a Slurm cluster: a throwaway one of four nodes on this machine, which `tests/hosts/slurm_up.sh` starts and ends.

Rule: the peer submits to the same cluster in the same run. The cluster is root's, and jobs run as root. Every call of `squeue` is counted, by a
program of that name that comes before Slurm's.
"""

import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.loopback import running_sshd
from benchmarks.measure import Sample, Side, in_process, median_ratio
from benchmarks.suites import Bench

__all__ = ["slurm"]

_SCRIPT = Path(__file__).resolve().parent.parent / "tests" / "hosts" / "slurm_up.sh"
_NODES = 4
_PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
_DAEMONS = ("slurmctld", "slurmd", "munged")


def slurm(bench: Bench) -> None:
    """(l) No-op jobs in four allocations over submitit's array, and how soon the first JobReturn is there."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    absent = [name for name in (*_PROGRAMS, *_DAEMONS) if shutil.which(name, path=path) is None]
    if absent or os.geteuid():
        raise SystemExit(f"needs root, and Slurm's programs and daemons: there is no {', '.join(absent) or 'root'}")
    count = 40 if bench.is_quick else 500
    with _cluster() as (config, folder), running_sshd(SLURM_CONF=str(config), PATH=f"{folder}/bin:{path}") as host:
        given = {**bench.spec(), "ssh_config": str(host.ssh_config), "workdir": str(folder / "work")}
        variables = {**host.environ, "SLURM_CONF": str(config)}
        many = {**given, "slurm": {"jobs": "many", "allocations": _NODES, "cpus": 2}}
        calls = folder / "squeue-calls"

        def ours() -> Sample:
            calls.write_text("")
            sample = in_process("ours", "jobs", bench.app, {"jobs": count, "host": many, "slots": None}, variables)
            sample.figures["calls"] = len(calls.read_text()) / max(1.0, sample.figures["seconds"] / 60)
            return sample

        def theirs() -> Sample:
            # A fifth of the jobs is enough, as with execnet.
            arguments = {"jobs": count // 5, "folder": str(folder / "submitit")}
            return in_process("peers", "submitit_array", bench.app, arguments, variables)

        def one() -> Sample:
            arguments = {"jobs": 1, "host": {**given, "slurm": {}}, "slots": None, "is_list": True}
            sample = in_process("ours", "jobs", bench.app, arguments, variables)
            behind = sample.figures["first_at"] - float((folder / "our-first-line").read_text())
            figures = {**sample.figures, "behind": behind, "bare": _first_line(folder, config)}
            return Sample(figures, sample.command_seconds, sample.first_seconds)

        pilots, array, first = Side("launcher", ours), Side("submitit", theirs), Side("launcher, one job", one)
        bench.turns(pilots, array, first)
    for side in (pilots, array):
        bench.note(f"{side.name}: jobs/s", f"{side.median(_rate):.3g} ({side.spread(_rate)})")
    bench.add("jobs/s in four allocations, from the first JobReturn to the last", pilots.median(_steady), 50)
    bench.add("rate over submitit's array, with connecting", median_ratio(pilots, array, _rate), 10)
    more = statistics.median(one.figures["first"] - one.figures["bare"] for one in first.samples)
    bench.add(
        "s from the call to the first JobReturn, more than sbatch to its first line", more, 0.7, less_is_better=True
    )
    behind = first.median(lambda sample: sample.figures["behind"])
    bench.note("s from the first line of its allocation's script to its JobReturn", f"{behind:.2f}")
    bench.note("calls of squeue in a minute", f"{pilots.median(lambda sample: sample.figures['calls']):.2g}")


def _rate(sample: Sample) -> float:
    return float(sample.figures["jobs"] / sample.figures["seconds"])


def _steady(sample: Sample) -> float:
    return float(sample.figures["steady"])


def _first_line(folder: Path, config: Path) -> float:
    """Seconds from sbatch's start to the first line of its script."""
    line = folder / "first-line"
    line.unlink(missing_ok=True)
    begun = time.perf_counter()
    subprocess.run(
        ["sbatch", "-Q", "-o", "/dev/null", "--wrap", f"echo >{line}"],
        check=True,
        env={**os.environ, "SLURM_CONF": str(config)},
    )
    while not line.exists():
        if time.perf_counter() - begun > 120:
            raise SystemExit("Slurm did not start a job within two minutes")
        time.sleep(0.005)
    return time.perf_counter() - begun


@contextmanager
def _cluster() -> Iterator[tuple[Path, Path]]:
    """A cluster. Yields its configuration, and a folder whose `bin/squeue` counts its calls, and whose `bin/sbatch` makes scripts say when they begin."""
    folder = Path(tempfile.mkdtemp(prefix="launcher-benchmarks-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    script, place = ["bash", str(_SCRIPT)], str(folder / "cluster")
    settings = {"NODES": str(_NODES), "ARRAY": "1001", "PORT": str(_free_ports(_NODES + 2))}
    counter = folder / "bin" / "squeue"
    counter.parent.mkdir()
    counter.write_text(f'#!/bin/sh\nprintf . >>{folder}/squeue-calls\nexec {shutil.which("squeue")} "$@"\n')
    counter.chmod(0o755)
    teller = counter.with_name("sbatch")
    line = f"date +%s.%N >{folder}/our-first-line"
    teller.write_text(f'#!/bin/sh\nsed "1a {line}" | {shutil.which("sbatch")} "$@"\n')
    teller.chmod(0o755)
    (folder / "work").mkdir(mode=0o700)
    try:
        subprocess.run([*script, "up", place], check=True, env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
        yield Path(place) / "slurm.conf", folder
    finally:
        subprocess.run([*script, "down", place], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has now."""
    for first in range(24_000 + os.getpid() % 4000, 32_000, count):
        taken = []
        try:
            for port in range(first, first + count):
                taken.append(socket.socket())
                taken[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for sock in taken:
                sock.close()
        return first
    raise SystemExit("no ports in a row are free")
