"""What a kept connection and an interpreter that waits on the host are worth: over execnet, and over a Hydra application here."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample, Side, in_process, median_ratio, run_command
from benchmarks.proxy import running_proxy
from benchmarks.suites import Bench, execnet_spec, first_seconds, wait_warm
from remote_agent.system.waiting.warm_store import WarmStore

__all__ = ["kept"]


def kept(bench: Bench) -> None:
    """(b) over a kept connection, and the Hydra application over itself here, the latter with an interpreter that waits on the host."""
    with (
        running_proxy(bench.host.port, 0.025) as delayed,
        _connections(bench, "host", ("far", delayed.port)) as environ,
    ):
        pairs = []
        for alias in ("host", "far"):
            host = {**bench.spec(alias), "name": alias}
            arguments = {"host": host}

            def run(arguments: dict[str, Any] = arguments) -> Sample:
                wait_warm(WarmStore(str(bench.host.workdir / "cache")))
                return in_process("ours", "first", bench.app, arguments, environ)

            in_process("ours", "first", bench.app, arguments, environ)
            execnet = bench.side(f"execnet, {alias}", "peers", "execnet_first", ssh=execnet_spec(bench, alias))
            pairs.append((Side(f"launcher, {alias}", run), execnet))
        bench.turns(*(side for pair in pairs for side in pair))
        hydra_app, second, local = _hydra_app(bench, environ)
        bench.turns(hydra_app, second, local)
    for side in (*(side for pair in pairs for side in pair), hydra_app, second, local):
        bench.note(
            f"{side.name}: to its first result", f"{side.median(first_seconds):.3f} s ({side.spread(first_seconds)})"
        )
    for (ours, execnet), what, target in zip(pairs, ("", ", 50 ms round trip"), (0.4, 0.5), strict=True):
        ratio = median_ratio(ours, execnet, first_seconds)
        bench.add(f"kept connection{what}: first JobReturn over execnet's", ratio, target, less_is_better=True)
    ratio = median_ratio(hydra_app, local, first_seconds)
    bench.add(
        "kept connection: a Hydra application's first line over that of `python` here", ratio, 0.4, less_is_better=True
    )
    ratio = median_ratio(second, local, first_seconds)
    bench.add("the same as the second command of a terminal", ratio, 0.4, less_is_better=True)


def _hydra_app(bench: Bench, environ: dict[str, str]) -> tuple[Side, Side, Side]:
    """The Hydra application by `launcher run`, after a run that leaves an interpreter; the same forked from a process that waits; and by `python` here."""
    spec = {name: value for name, value in {**bench.spec(), "python": sys.executable}.items() if name != "name"}
    hosts = bench.host.folder / "hydra.yaml"
    hosts.write_text(json.dumps({"host": spec}))
    launched = str(Path(sys.executable).parent / "launcher")

    served = {**environ, "HYDRA_REMOTE_LAUNCHER_NO_WARM": ""}

    def side(name: str, *words: str, is_remote: bool, environ: dict[str, str] = environ) -> Side:
        def run() -> Sample:
            if is_remote:
                wait_warm(WarmStore(str(bench.host.workdir / "cache")))
            first = bench.app.parent / "first"
            first.unlink(missing_ok=True)
            begun = time.time()
            sample = run_command([*words, f"first={first}"], bench.app, environ)
            sample.first_seconds = first.stat().st_mtime - begun
            return sample

        return Side(name, run)

    words = (launched, "run", "bench_hydra_app.py", "--hosts", str(hosts))
    run_command([*words, f"first={bench.app.parent / 'first'}"], bench.app, served)
    ours = side("launcher run of the Hydra application", *words, is_remote=True)
    second = side("the same, forked from a process that waits", *words, is_remote=True, environ=served)
    return ours, second, side("the same by python here", sys.executable, "bench_hydra_app.py", is_remote=False)


@contextmanager
def _connections(bench: Bench, *aliases: str | tuple[str, int]) -> Iterator[dict[str, str]]:
    """Kept connections to aliases of the host, some through a proxy's port. Gives the variables for those who use them."""
    launched = str(Path(sys.executable).parent / "launcher")
    named = [alias if isinstance(alias, str) else bench.host.alias(*alias) for alias in aliases]
    # A socket cannot have a long path.
    with tempfile.TemporaryDirectory(prefix="l-", dir="/tmp") as runtime:
        environ = {**bench.host.environ, "XDG_RUNTIME_DIR": runtime}
        specs = {alias: {name: value for name, value in bench.spec(alias).items() if name != "name"} for alias in named}
        hosts = bench.host.folder / "kept.yaml"
        hosts.write_text(json.dumps(specs))

        def call(*words: str) -> None:
            command = [launched, *words]
            subprocess.run(command, env={**os.environ, **environ}, check=True, stdout=subprocess.DEVNULL)

        for alias in named:
            call("connect", alias, "--hosts", str(hosts))
        try:
            yield environ
        finally:
            for alias in named:
                call("disconnect", alias)
