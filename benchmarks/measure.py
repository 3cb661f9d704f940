"""Runs sides in fresh processes and in turns, and keeps medians.

Rule: within a benchmark the sides take turns, run by run, so that a machine that slows down slows all of them equally.
Every side has bytecode: installed peers have it, so a checkout is compiled beforehand, and nothing prevents its use.
"""

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: The parts of a checkout that the sides import.
#: A command starts by itself, where it is not said otherwise. Hosts do not get this variable.
_UNSERVED = {"HYDRA_REMOTE_LAUNCHER_NO_WARM": "1"}
_PACKAGES = ("launcher", "remote_agent", "hydra_plugins", "benchmarks")
_SIDE = "from benchmarks.side import main; main()"


@dataclass
class Sample:
    """The result of one run of a side: its own figures, and the parent's clock since process start."""

    figures: dict[str, Any]
    command_seconds: float
    first_seconds: float | None = None


@dataclass
class Side:
    """A side: its name, how to run it once, and its samples so far."""

    name: str
    run: Callable[[], Sample]
    samples: list[Sample] = field(default_factory=list)

    def median(self, of: Callable[[Sample], float]) -> float:
        """Return the median of a figure over the samples."""
        return statistics.median(of(sample) for sample in self.samples)

    def spread(self, of: Callable[[Sample], float]) -> str:
        """Return the smallest and the largest value of a figure, as text."""
        values = [of(sample) for sample in self.samples]
        return f"{min(values):.3g} to {max(values):.3g}"


def median_ratio(over: Side, under: Side, of: Callable[[Sample], float]) -> float:
    """Return the median of the ratios within each round, because a slow phase of the machine slows both sides of a
    round.
    """
    return statistics.median(of(a) / of(b) for a, b in zip(over.samples, under.samples, strict=True))


def take_turns(sides: list[Side], runs: int, say: Callable[[str], None]) -> None:
    """Run every side `runs` times, one after the other in each round."""
    for number in range(1, runs + 1):
        for side in sides:
            begun = time.perf_counter()
            side.samples.append(side.run())
            say(f"  run {number}/{runs}: {side.name}: {time.perf_counter() - begun:.2f} s")


def compile_all(*folders: Path) -> None:
    """Compile the checkout, and these folders, as an installation would have."""
    for folder in [*(ROOT / name for name in _PACKAGES), *folders]:
        if folder.is_dir() and not compileall.compile_dir(folder, quiet=1):
            raise SystemExit(f"benchmarks: {folder} cannot be compiled")


def file_microseconds(folder: Path, count: int = 300) -> float:
    """Return the CPU microseconds to make an empty file in a new folder there.

    A job makes a dozen files. Some file systems take 5 µs for each, others 400 µs.
    """
    place = folder / "files"
    place.mkdir()
    try:
        begun = time.process_time()
        for number in range(count):
            os.close(os.open(place / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        return (time.process_time() - begun) / count * 1e6
    finally:
        shutil.rmtree(place)


def in_process(
    module: str, function: str, project: Path, arguments: dict[str, Any], env: dict[str, str], timeout: float = 3600
) -> Sample:
    """Run a side's function in a fresh process, with the project's folder and import path."""
    command = [sys.executable, "-c", _SIDE, module, function, json.dumps(arguments)]
    return run_command(command, project, env, timeout)


def cpu_seconds(command: list[str], env: dict[str, str]) -> float:
    """Return the CPU time that a command takes, in all its processes.

    Raises:
        SystemExit: it fails.
    """
    environ = {**_UNSERVED, **os.environ, **env}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"benchmarks: {' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def run_command(command: list[str], project: Path, env: dict[str, str], timeout: float = 3600) -> Sample:
    """Run a command in the project's folder. Its FIRST line is timed. Its RESULT line, if any, is parsed."""
    environ = {**_UNSERVED, **os.environ, **env, "PYTHONPATH": f"{ROOT}{os.pathsep}{project}"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = threading.Timer(timeout, process.kill)
    watch.start()
    first: float | None = None
    figures: dict[str, Any] = {}
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""))
    reader.start()
    try:
        for line in process.stdout or ():
            if line.startswith("FIRST"):
                first = first or time.perf_counter() - begun
            elif line.startswith("RESULT "):
                figures = json.loads(line[7:])
        code = process.wait()
    finally:
        watch.cancel()
        process.kill()
        process.wait()
        reader.join()
    seconds = time.perf_counter() - begun
    if code != 0:
        raise SystemExit(f"benchmarks: {' '.join(command)} ended with {code}:\n{''.join(errors)[-4000:]}")
    return Sample(figures, seconds, first)
