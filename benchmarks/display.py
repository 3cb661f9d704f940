"""What the live display costs the controller: the share of a core at 100 jobs a second, and how much more that is than plain lines.

Rule: both get the same events at the same times, each in a fresh process. The terminal is a real one, and the parent reads it. Only the CPU time of
the process with the display counts.
"""

import json
import os
import pty
import statistics
import subprocess
import sys
import threading

from benchmarks.suites import Bench

__all__ = ["display"]

_JOBS_A_SECOND = 100
_HOSTS = 4
#: Feeds the events of jobs to a display, and prints the CPU seconds and the seconds that it took.
_PROGRAM = """
import json, sys, time
from launcher import events
from launcher.display.tally import Tally
from launcher.terminal.factory import make_display
kind, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
hosts = [f"gpu{number}" for number in range(int(sys.argv[4]))]
out = sys.stdout
tally = Tally()
class Nothing:
    def __enter__(self): return self
    def __exit__(self, *raised): pass
    def __call__(self, event): tally(event)
shown = Nothing() if kind == "none" else make_display(tally, out, total=count)
with shown as display:
    at = time.time()
    display(events.RunStarted(at, "run-1", "MULTIRUN", "/work", tuple(hosts)))
    for host in hosts:
        display(events.HostReady(at, host, 8, "3.11.7"))
    cpu, begin = time.process_time(), time.perf_counter()
    for num in range(count):
        host, at = hosts[num % len(hosts)], time.time()
        display(events.JobQueued(at, num, (f"lr={num}",)))
        display(events.JobAssigned(at, num, 1, host))
        display(events.AttemptStarted(at, num, 1, host, 0, at))
        if num >= 8 * len(hosts):
            done, there = num - 8 * len(hosts), hosts[num % len(hosts)]
            display(events.AttemptEnded(at, done, 1, there, "COMPLETED", 0.3, None))
            display(events.JobReturned(at, done, 1, there, "COMPLETED", 0.3, None, (f"lr={done}",)))
        time.sleep(max(begin + (num + 1) / rate - time.perf_counter(), 0))
    cpu, took = time.process_time() - cpu, time.perf_counter() - begin
print(json.dumps([cpu, took]), file=sys.stderr)
"""


def _share(kind: str, count: int) -> float:
    """Which part of a core a display takes: `live` on a terminal, `lines` in a pipe, or `none`."""
    command = [sys.executable, "-c", _PROGRAM, kind, str(count), str(_JOBS_A_SECOND), str(_HOSTS)]
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    if kind != "live":
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        cpu, took = json.loads(done.stderr)
        return float(cpu) / float(took)
    master, slave = pty.openpty()
    reader = threading.Thread(target=_drain, args=(master,), daemon=True)
    reader.start()
    process = subprocess.Popen(command, env=environ, stdout=slave, stderr=subprocess.PIPE, text=True)
    os.close(slave)
    _, said = process.communicate()
    reader.join()
    os.close(master)
    if process.returncode:
        raise SystemExit(said)
    cpu, took = json.loads(said)
    return float(cpu) / float(took)


def _drain(master: int) -> None:
    try:
        while os.read(master, 1 << 16):
            pass
    except OSError:
        return  # the other end is closed


def display(bench: Bench) -> None:
    """The live display: its share of a core at 100 jobs a second, above that of the events alone."""
    count = 100 if bench.is_quick else 2000
    shares: dict[str, list[float]] = {"live": [], "lines": [], "none": []}
    for _ in range(bench.runs):
        for kind, found in shares.items():
            found.append(_share(kind, count))
    for kind in ("live", "lines"):
        more = [100 * (one - none) for one, none in zip(shares[kind], shares["none"], strict=True)]
        print(f"display {kind}: {', '.join(f'{one:.1f} %' for one in more)} of a core", flush=True)
        bench.add(
            f"the {kind} display at {_JOBS_A_SECOND} jobs a second, % of a core",
            statistics.median(more),
            5,
            less_is_better=True,
        )
