"""`python -m benchmarks`: every benchmark against its peers on a loopback OpenSSH host, as ratios of medians.

    python -m benchmarks                 all but the long one
    python -m benchmarks --only jobs,bulk
    python -m benchmarks --long          adds 100,000 jobs over the local transport
    python -m benchmarks --quick         few runs of few jobs, to see that it works; the figures mean nothing

Rule: ratios are the result, and seconds are extra. If a figure misses its target, its line says so.
"""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import loopback, suites
from benchmarks.display import display
from benchmarks.environments import environments
from benchmarks.gpus import gpus
from benchmarks.kept import kept
from benchmarks.measure import compile_all
from benchmarks.slurm import slurm
from benchmarks.suites import Bench

SUITES = {
    **suites.SUITES,
    "display": display,
    "environments": environments,
    "gpus": gpus,
    "kept": kept,
    "slurm": slurm,
}


def main() -> None:
    """Parse the arguments, start the host, and run the chosen benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios against the peers.")
    parser.add_argument("--only", default="", help=f"comma-separated: {', '.join(SUITES)}")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side; the median counts (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, once each, to see that it works")
    parser.add_argument("--long", action="store_true", help="also 100,000 jobs over the local transport")
    parser.add_argument("--many", type=int, default=100_000, help="jobs of `long` (default 100000)")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only.split(",") if name] or [*SUITES]
    if not arguments.only:
        # Few machines have Slurm.
        chosen.remove("slurm")
        if not arguments.long:
            chosen.remove("long")
    unknown = [name for name in chosen if name not in SUITES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(SUITES)}")

    # If it is ended from outside, it still ends its sshd and removes its folders.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    folder = Path(tempfile.mkdtemp(prefix="launcher-benchmarks-app-"))
    os.environ["TMPDIR"] = str(folder / "tmp")
    (folder / "tmp").mkdir()
    tempfile.tempdir = None
    failed: list[str] = []
    try:
        shutil.copytree(Path(__file__).parent / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        compile_all(folder / "app")
        with loopback.running_sshd() as host:
            runs = 1 if arguments.quick else arguments.runs
            many = 1_000 if arguments.quick else arguments.many
            bench = Bench(host, folder / "app", runs=runs, is_quick=arguments.quick, many=many)
            for name in chosen:
                _run(name, SUITES[name], bench, failed)
            print("\n" + bench.table())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit(f"did not run: {', '.join(failed)}")


def _run(name: str, suite: Callable[[Bench], None], bench: Bench, failed: list[str]) -> None:
    print(f"\n{name}: {(suite.__doc__ or '').splitlines()[0]}", flush=True)
    try:
        suite(bench)
    except SystemExit as error:
        print(f"  did not run: {error}", flush=True)
        failed.append(name)


if __name__ == "__main__":
    main()
