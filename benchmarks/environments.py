"""What an environment of a scientific application costs: over `--python` of the same, over `uv sync`, and in disk.

Rule: both sides of a ratio have the same wheels on the same disk, with the same uv, and caches in the same state. Wheels come from the package
index once, before anything is measured.
"""

import os
import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample, Side, in_process, median_ratio, run_command
from benchmarks.suites import MIB, Bench

__all__ = ["environments"]

_PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn")
_PROJECT = """[project]
name = "sci"
version = "0"
requires-python = ">=3.11"
dependencies = [{}]

[tool.uv]
package = false
"""


def environments(bench: Bench) -> None:
    """Environments of numpy, scipy, pandas and scikit-learn (numpy alone with --quick): times and disk."""
    from launcher.environments.uv import uv_program

    packages = _PACKAGES[:1] if bench.is_quick else _PACKAGES
    lock = _locked(bench, "sci", packages)
    host = {**bench.spec(), "environment": str(lock)}
    cache = bench.host.workdir / "cache"
    uv = uv_program()

    def ours(name: str, prepare: Any, host: dict[str, Any]) -> Side:
        def run() -> Sample:
            prepare()
            return in_process("ours", "environment", bench.app, {"host": host}, bench.host.environ)

        return Side(name, run)

    # Fetches the wheels, and builds the first.
    begun = ours("", lambda: None, host).run()
    key = str(begun.figures["key"])
    wheels = _wheels(cache)

    python = bench.spec() | {"python": str(cache / "envs" / key / "bin" / "python")}
    with_environment = bench.side("--environment, a later run", "ours", "first", host=host)
    with_python = bench.side("--python of the same", "ours", "first", host=python)
    with_python.run()
    bench.turns(with_environment, with_python)
    more = statistics.median(
        _first(one) - _first(other) for one, other in zip(with_environment.samples, with_python.samples, strict=True)
    )
    bench.add(
        "a later run with an environment over --python of the same, ms more", more * 1000, 50, less_is_better=True
    )

    built = ours("built again of a warm cache", lambda: shutil.rmtree(cache / "envs"), host)
    synced = Side("uv sync of a warm cache", lambda: _sync(bench, lock, uv))
    synced.run()
    bench.turns(built, synced)
    ratio = median_ratio(built, synced, lambda one: float(one.figures["build"]))
    bench.note("build of a warm cache", f"{built.median(_build):.3f} s ({built.spread(_build)})")
    bench.note("uv sync of a warm cache", f"{synced.median(_build):.3f} s ({synced.spread(_build)})")
    bench.add("build of a warm cache over uv sync's", ratio, 1.5, less_is_better=True)

    first = ours("sent and built on a host that has nothing", lambda: shutil.rmtree(cache), host)
    copied = Side("scp of the same files, and uv", lambda: _copy_and_install(bench, wheels, uv))
    bench.turns(first, copied)
    ratio = median_ratio(first, copied, lambda one: float(one.figures["first"]))
    bench.note("sent and built", f"{first.median(_whole):.2f} s ({first.spread(_whole)})")
    bench.note("scp and uv", f"{copied.median(_whole):.2f} s ({copied.spread(_whole)})")
    bench.add("sent and built over scp and uv", ratio, 1.3, less_is_better=True)

    alone = _together(cache / "envs", cache / "uv")
    other = _locked(bench, "other", (*packages, "idna"))
    ours("", lambda: None, {**host, "environment": str(other)}).run()
    further = _together(cache / "envs", cache / "uv") - alone
    bench.note("disk of the first environment, and of a further one, MiB", f"{alone / MIB:.0f}, {further / MIB:.1f}")
    bench.add("disk of a further environment over the first's", further / alone, 0.05, less_is_better=True)


def _first(sample: Sample) -> float:
    assert sample.first_seconds is not None
    return sample.first_seconds


def _build(sample: Sample) -> float:
    return float(sample.figures["build"])


def _whole(sample: Sample) -> float:
    return float(sample.figures["first"])


def _locked(bench: Bench, name: str, packages: tuple[str, ...]) -> Path:
    """The lock of a project that needs these; resolved with the user's index."""
    from launcher.environments.uv import run_uv

    folder = bench.host.folder / name
    folder.mkdir()
    (folder / "pyproject.toml").write_text(_PROJECT.format(", ".join(f'"{one}"' for one in packages)))
    run_uv(name, ["lock", "--quiet", "--python", bench.host.python], cwd=folder)
    return folder / "uv.lock"


def _wheels(cache: Path) -> Path:
    """The same wheels under their names, in a folder for the peer."""
    folder = cache.parent.parent / "wheels"
    folder.mkdir()
    for wheel in (cache / "wheels").glob("*/*.whl"):
        shutil.copyfile(wheel, folder / wheel.name)
    return folder


def _uv_environ(cache: Path) -> dict[str, str]:
    return {
        "UV_CACHE_DIR": str(cache), "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "hardlink",
        "UV_NO_PROGRESS": "1",
    }  # fmt: skip


def _sync(bench: Bench, lock: Path, uv: str) -> Sample:
    """What uv alone takes for the same lock, with its files in its cache."""
    shutil.rmtree(lock.parent / ".venv", ignore_errors=True)
    command = [uv, "sync", "--quiet", "--frozen", "--python", bench.host.python]
    sample = run_command(command, lock.parent, _uv_environ(bench.host.folder / "peer-cache"))
    return Sample({"build": sample.command_seconds}, sample.command_seconds)


def _copy_and_install(bench: Bench, wheels: Path, uv: str) -> Sample:
    """What a person does by hand for a host without internet: copy the wheels and uv, and have uv install them."""
    place = bench.host.folder / "peer"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    install = (
        f"{place}/uv venv --quiet --python {bench.host.python} {place}/venv && "
        f"{place}/uv pip install --quiet --offline --no-index --no-deps --python {place}/venv/bin/python {place}/wheels/*.whl"
    )
    variables = " ".join(f"{name}={value}" for name, value in _uv_environ(place / "cache").items())
    script = (
        f"scp -q -F {bench.host.ssh_config} -r {wheels} {uv} host:{place}/ && ssh host 'export {variables}; {install}'"
    )
    sample = run_command(["/bin/sh", "-ec", script], bench.app, bench.host.environ)
    return Sample({"first": sample.command_seconds}, sample.command_seconds)


def _together(*folders: Path) -> int:
    """Bytes on the disk of these folders; what they share counts once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for root, names, files in os.walk(folder):
            for name in [*names, *files]:
                status = (Path(root) / name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
