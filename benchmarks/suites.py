"""The benchmarks: their sides, ratios and targets.

Rule: a ratio is the median of the ratios within each round, the product over the peer. For a rate, more than the target
is better. If less is better, the line says so.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loopback import Loopback
from benchmarks.measure import (
    Sample,
    Side,
    cpu_seconds,
    file_microseconds,
    in_process,
    median_ratio,
    run_command,
    take_turns,
)
from benchmarks.proxy import running_proxy
from remote_agent.system.waiting.warm_store import WarmStore

MIB = 1024 * 1024


@dataclass
class Line:
    """One line of the closing table."""

    what: str
    figure: str
    target: str
    is_met: bool | None


@dataclass
class Bench:
    """What every benchmark gets: the host, the application and the number of runs. They fill its table."""

    host: Loopback
    app: Path
    runs: int
    is_quick: bool
    many: int = 100_000
    lines: list[Line] = field(default_factory=list)

    def spec(self, alias: str = "host", workdir: str = "") -> dict[str, Any]:
        """Return the host as fields of HostSpec."""
        return {
            "name": "host",
            "address": alias,
            "python": self.host.python,
            "workdir": workdir or str(self.host.workdir),
            "ssh_config": str(self.host.ssh_config),
        }

    def side(self, name: str, module: str, function: str, app: Path | None = None, **arguments: Any) -> Side:
        """Make a side that runs a function of peers.py or ours.py."""
        return Side(name, lambda: in_process(module, function, app or self.app, arguments, self.host.environ))

    def turns(self, *sides: Side) -> None:
        """Run the sides in turns."""
        take_turns(list(sides), self.runs, lambda text: print(text, flush=True))

    def add(self, what: str, ratio: float, target: float | None, *, less_is_better: bool = False) -> None:
        """Add a line to the table: a ratio and its target."""
        is_met = None if target is None else (ratio <= target if less_is_better else ratio >= target)
        word = "" if target is None else f"{'at most' if less_is_better else 'at least'} {target:g}"
        self.lines.append(Line(what, f"{ratio:.3g}", word, is_met))
        print(f"  {what}: {ratio:.3g}{f' ({word})' if word else ''}", flush=True)

    def note(self, what: str, figure: str) -> None:
        """Add a line without a target to the table."""
        self.lines.append(Line(what, figure, "", None))
        print(f"  {what}: {figure}", flush=True)

    def note_files(self) -> None:
        """Add a line that says what a new file costs here. The peers make no files."""
        self.note("CPU µs to make a file here", f"{file_microseconds(self.host.folder):.0f}")

    def table(self) -> str:
        """Return the table in Markdown."""
        mark = {None: "", True: "met", False: "**falls short**"}
        rows = [f"| {line.what} | {line.figure} | {line.target} | {mark[line.is_met]} |" for line in self.lines]
        return "\n".join(["| what | figure | target | |", "|---|---|---|---|", *rows])


def _seconds(sample: Sample) -> float:
    return float(sample.figures["seconds"])


def _rate(sample: Sample) -> float:
    return float(sample.figures["jobs"]) / _seconds(sample)


def execnet_spec(bench: Bench, alias: str = "host") -> str:
    return f"ssh={alias}//python={bench.host.python}"


def jobs(bench: Bench) -> None:
    """(a) No-op jobs, two at a time, end to end, both hooks on: a process per job, and jobs that share processes."""
    count = 50 if bench.is_quick else 1000
    ssh = {
        "hostname": "host",
        "ssh_args": ["-F", str(bench.host.ssh_config)],
        "check_host_keys": "enforce",
        "python_path": [bench.host.python],
    }
    ours = bench.side("launcher", "ours", "jobs", jobs=count, host=bench.spec())
    reuse = bench.side("launcher, reuse", "ours", "jobs", jobs=count, host=bench.spec(), isolation="reuse")
    pool = bench.side("multiprocessing.Pool(2, maxtasksperchild=1), local", "peers", "pool", jobs=count)
    mitogen = bench.side("mitogen, fork per job", "peers", "mitogen_jobs", jobs=count, ssh=ssh)
    # A fifth of the jobs is enough: an interpreter per job is so slow that the rate is known by then.
    execnet = bench.side("execnet, popen via ssh", "peers", "execnet_jobs", jobs=count // 5, ssh=execnet_spec(bench))
    sides = (ours, reuse, pool, mitogen, execnet)
    bench.turns(*sides)
    for side in sides:
        bench.note(f"{side.name}: jobs/s", f"{side.median(_rate):.0f} ({side.spread(_rate)})")
    bench.note_files()
    bench.add("rate over mitogen's", median_ratio(ours, mitogen, _rate), 2.0)
    bench.add("rate over the local pool's", median_ratio(ours, pool, _rate), 1.0)
    bench.add("rate over execnet's", median_ratio(ours, execnet, _rate), None)
    bench.add("rate with `reuse` over the local pool's", median_ratio(reuse, pool, _rate), 1.5)
    bench.add("rate with `reuse` over mitogen's", median_ratio(reuse, mitogen, _rate), None)


def profile(bench: Bench) -> None:
    """(a) continued: CPU milliseconds per job, by process.

    This shows where the time goes, whatever else the machine does.
    """
    count, warm = (60, 20) if bench.is_quick else (1000, 100)
    ours = bench.side("launcher", "ours", "spent", jobs=count, warm=warm, host=bench.spec(), sshd=bench.host.pid)
    reuse = bench.side(
        "launcher, reuse",
        "ours",
        "spent",
        jobs=count,
        warm=warm,
        host=bench.spec(),
        sshd=bench.host.pid,
        isolation="reuse",
    )
    pool = bench.side("the local pool", "peers", "pool", jobs=count)
    bench.turns(ours, reuse, pool)
    for side, where in ((ours, ""), (reuse, ", reuse")):
        per_job = {
            name: side.median(lambda sample, name=name: 1000 * sample.figures["spent"][name] / sample.figures["jobs"])
            for name in side.samples[0].figures["spent"]
        }
        for name, milliseconds in per_job.items():
            bench.note(f"CPU ms per job{where}: {name}", f"{milliseconds:.2f}")
        bench.note(f"CPU ms per job{where}: all of it", f"{sum(per_job.values()):.2f}")
    pool_ms = pool.median(lambda sample: 1000 * float(sample.figures["cpu"]) / sample.figures["jobs"])
    bench.note_files()
    bench.note("CPU ms per job: all of the local pool", f"{pool_ms:.2f}")


def first(bench: Bench) -> None:
    """(b) Seconds from command start to the first JobReturn, on a host that has the bundle; and at 50 ms round trip."""
    with running_proxy(bench.host.port, 0.025) as delayed:
        far = bench.host.alias("far", delayed.port)
        pairs = [
            (
                bench.side(f"launcher{where}", "ours", "first", host=bench.spec(alias)),
                bench.side(f"execnet{where}", "peers", "execnet_first", ssh=execnet_spec(bench, alias)),
            )
            for alias, where in (("host", ""), (far, ", 50 ms round trip"))
        ]
        pairs[0][0].run()  # this sends the bundle
        bench.turns(*(side for pair in pairs for side in pair))
    for side in (side for pair in pairs for side in pair):
        bench.note(
            f"{side.name}: to first result", f"{side.median(first_seconds):.3f} s ({side.spread(first_seconds)})"
        )
    near, distant = (median_ratio(ours, execnet, first_seconds) for ours, execnet in pairs)
    bench.add("time to first JobReturn over execnet's", near, 0.6, less_is_better=True)
    bench.add("the same at 50 ms round trip", distant, None, less_is_better=True)


def first_seconds(sample: Sample) -> float:
    if sample.first_seconds is None:
        raise SystemExit("the first result was not reported")
    return sample.first_seconds


def delay(bench: Bench) -> None:
    """(c) Jobs per second at 50 ms round trip over those without delay.

    Both use a proxy, so that only the delay differs.
    """
    count = 100 if bench.is_quick else 1000
    with running_proxy(bench.host.port) as direct, running_proxy(bench.host.port, 0.025) as delayed:
        near = bench.spec(bench.host.alias("near", direct.port))
        far = bench.spec(bench.host.alias("far", delayed.port))
        sides = [
            bench.side("no delay", "ours", "jobs", jobs=count, host=near),
            bench.side("50 ms round trip", "ours", "jobs", jobs=count, host=far),
        ]
        bench.turns(*sides)
    rates = [side.median(_steady) for side in sides]
    for side, rate in zip(sides, rates, strict=True):
        bench.note(
            f"{side.name}: jobs/s after the first result", f"{rate:.0f} (whole run {side.median(_seconds):.2f} s)"
        )
    bench.add("rate at 50 ms over the rate without delay", median_ratio(sides[1], sides[0], _steady), 0.9)
    bench.add("the same for the whole run, connecting included", median_ratio(sides[0], sides[1], _seconds), None)


def _steady(sample: Sample) -> float:
    return float(sample.figures["steady"])


def bulk(bench: Bench) -> None:
    """(d) One return value of 256 MiB over a bare paramiko channel with the same cipher, by both ways in; controller memory."""
    size = (16 if bench.is_quick else 256) * MIB
    ours = bench.side("launcher", "ours", "large_value", size=size, host={**bench.spec(), "ssh": "fabric"})
    openssh = bench.side(
        "launcher, ssh program", "ours", "large_value", size=size, host={**bench.spec(), "ssh": "openssh"}
    )
    bare = bench.side(
        "bare paramiko channel",
        "peers",
        "paramiko_bulk",
        size=size,
        port=bench.host.port,
        user=bench.host.user,
        identity=str(bench.host.identity),
    )
    bench.turns(ours, openssh, bare)
    for side in (ours, openssh, bare):
        bench.note(f"{side.name}: MiB/s", f"{size / MIB / side.median(_seconds):.0f} ({side.spread(_seconds)} s)")
    bench.add("bulk rate over bare paramiko's", median_ratio(bare, ours, _seconds), 0.6)
    bench.add("the same through the ssh program", median_ratio(bare, openssh, _seconds), 1.0)
    peak = ours.median(lambda sample: float(sample.figures["peak_rss"])) / MIB
    bench.add("controller peak RSS, MiB, value unread", peak, size / MIB + 100, less_is_better=True)


def second(bench: Bench) -> None:
    """(e) Bytes that a second run of a 2,000-file project sends, over those of the first."""
    shares, one_changed = [], []
    for number in range(bench.runs):
        project = bench.app.parent / f"project{number}"
        _make_project(bench.app, project, 100 if bench.is_quick else 2000)
        with running_proxy(bench.host.port) as counted:
            host = bench.spec(
                bench.host.alias(f"counted{number}", counted.port), str(bench.host.folder / "workdirs" / str(number))
            )
            # Another application sends the bundle, so that the first run below sends only the project.
            run = bench.side("", "ours", "jobs", jobs=2, host=host).run
            run()
            sent = []
            for change in (False, False, True):
                if change:
                    (project / "package" / "module_7.py").write_text("CHANGED = True\n")
                before = counted.sent
                bench.side("", "ours", "jobs", app=project, jobs=2, host=host).run()
                sent.append(counted.sent - before)
        shares.append(sent[1] / sent[0])
        one_changed.append(sent[2] / sent[0])
        print(
            f"  run {number + 1}/{bench.runs}: bytes sent {sent[0]:,}, then {sent[1]:,}, one file changed {sent[2]:,}",
            flush=True,
        )
        shutil.rmtree(project)
    bench.add("bytes of a second run over the first's", statistics.median(shares), 0.01, less_is_better=True)
    bench.add("the same with one file changed", statistics.median(one_changed), None)


def unchanged(bench: Bench) -> None:
    """(e) A second run of an unchanged project of 50,000 files, command start to first JobReturn, less one of 50 files."""
    sides = []
    for count in (50, 5_000 if bench.is_quick else 50_000):
        project = bench.app.parent / f"project-of-{count}"
        _make_project(bench.app, project, count, lines=3)
        subprocess.run(["git", "-C", str(project), "add", "-A"], check=True)
        side = bench.side(f"{count} files", "ours", "first", app=project, host=bench.spec())
        side.run()  # the first run: everything is hashed, sent and laid out
        side.run()  # what was as new as its index is read once more
        sides.append(side)
    few, many = sides
    bench.turns(few, many)
    more = statistics.median(
        first_seconds(over) - first_seconds(under) for over, under in zip(many.samples, few.samples, strict=True)
    )
    bench.add("second run of 50,000 unchanged files, seconds more than of 50", more, 1.5, less_is_better=True)


def _make_project(app: Path, project: Path, files: int, lines: int = 50) -> None:
    shutil.copytree(app, project, ignore=shutil.ignore_patterns("__pycache__"))
    noise = random.Random(project.name)
    for number in range(files):
        folder = project / ("package" if lines == 50 else f"package{number % 500}")
        folder.mkdir(exist_ok=True)
        values = (f"VALUE_{line} = {noise.getrandbits(256):#x}\n" for line in range(lines))
        (folder / f"module_{number}.py").write_text("".join(values))
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)


def hydra(bench: Bench) -> None:
    """(f) A Hydra multirun of no-op jobs from command start, over SSH with two slots, compared with Hydra's own
    launchers.
    """
    count = 6 if bench.is_quick else 200
    sweep = f"number=range({count})"
    hosts = bench.host.folder / "hosts.yaml"
    hosts.write_text(
        f"host:\n  address: host\n  slots: 2\n  python: {bench.host.python}\n  workdir: {bench.host.workdir}\n"
        f"  ssh_config: {bench.host.ssh_config}\n"
    )
    python, app = sys.executable, "bench_hydra_app.py"
    launched = str(Path(python).parent / "launcher")

    def command(name: str, *words: str) -> Side:
        def run() -> Sample:
            first = bench.app.parent / "first"
            first.unlink(missing_ok=True)
            begun = time.time()
            sample = run_command([*words, sweep, f"first={first}"], bench.app, bench.host.environ)
            sample.first_seconds = first.stat().st_mtime - begun
            return sample

        return Side(name, run)

    basic = command("Hydra's basic launcher", python, app, "-m", "hydra/launcher=basic")
    joblib = command("joblib, n_jobs=2", python, app, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    submitit = command("submitit_local", python, app, "-m", "hydra/launcher=submitit_local")
    plugin = command("the plugin", python, app, "-m", "hydra/launcher=remote", f"hydra.launcher.hosts_file={hosts}")
    multirun = command("launcher multirun", launched, "multirun", app, "--hosts", str(hosts))
    sides = [plugin, multirun, basic, joblib, submitit]
    bench.turns(*sides)
    for side in sides:
        seconds = side.median(_command)
        bench.note(
            f"{side.name}: jobs/s from command start, first job after",
            f"{count / seconds:.1f} ({side.spread(_command)} s), {side.median(first_seconds):.2f} s",
        )
    bench.add("the plugin's rate over the basic launcher's", median_ratio(basic, plugin, _command), 1.0)
    bench.add("`launcher multirun`'s rate over the basic launcher's", median_ratio(basic, multirun, _command), 1.5)
    bench.add(
        "`launcher multirun`'s first job over the basic launcher's",
        median_ratio(multirun, basic, first_seconds),
        0.25,
        less_is_better=True,
    )


def _command(sample: Sample) -> float:
    return sample.command_seconds


def commands(bench: Bench) -> None:
    """CPU time of the commands that only read, over that of a Python that does nothing; 60 ms are free."""
    state = {"XDG_STATE_HOME": str(bench.host.folder / "state")}
    launched = str(Path(sys.executable).parent / "launcher")
    cpu_seconds(
        [
            launched,
            "multirun",
            f"{bench.app / 'bench_app.py'}:noop",
            "number=1,2",
            "--folder",
            str(bench.host.folder / "past"),
        ],
        {**bench.host.environ, **state},
    )

    def side(name: str, *command: str) -> Side:
        return Side(name, lambda: Sample({}, cpu_seconds(list(command), state)))

    bare = side("python -c pass", sys.executable, "-c", "pass")
    sides = [
        side(f"launcher {' '.join(words)}", launched, *words) for words in (["--help"], ["runs"], ["show", "last"])
    ]
    # They take no time, so more turns cost nothing and help.
    take_turns([bare, *sides], 4 * bench.runs, lambda _: None)
    bench.note("python -c pass: CPU", f"{1e3 * bare.median(_command):.0f} ms")
    for one in sides:
        bench.note(f"{one.name}: CPU", f"{1e3 * one.median(_command):.0f} ms")
        pairs = zip(one.samples, bare.samples, strict=True)
        ratio = statistics.median((_command(a) - 0.06) / _command(b) for a, b in pairs)
        bench.add(f"{one.name}: CPU less 60 ms, over python -c pass", ratio, 1.5, less_is_better=True)


def warm(bench: Bench) -> None:
    """An app that imports numpy, scipy, pandas and scikit-learn, over a kept connection: until its first line, over `python app.py` here."""
    # Both sides have the packages of this Python.
    host = {name: value for name, value in {**bench.spec(), "python": sys.executable}.items() if name != "name"}
    hosts = str(bench.host.folder / "hosts.yaml")
    Path(hosts).write_text(json.dumps({"host": host}))
    launcher = str(Path(sys.executable).parent / "launcher")
    # A socket cannot have a long path.
    with tempfile.TemporaryDirectory(prefix="l-", dir="/tmp") as runtime:
        environ = {**bench.host.environ, "XDG_RUNTIME_DIR": runtime}

        def run(keep: str) -> Sample:
            folder = str(bench.host.folder / f"warm{len(list(bench.host.folder.glob('warm*')))}")
            command = [launcher, "run", "bench_warm_app.py:main", "--hosts", hosts, "--folder", folder, "--warm", keep]
            return run_command(command, bench.app, environ)

        def run_warm() -> Sample:
            wait_warm(WarmStore(str(bench.host.workdir / "cache")))
            return run("10m")

        def call(*words: str) -> None:
            command = [launcher, *words]
            subprocess.run(command, env={**os.environ, **environ}, check=True, stdout=subprocess.DEVNULL)

        call("connect", "host", "--hosts", hosts)
        run("10m")
        local = Side("python app.py, local", lambda: run_command([sys.executable, "bench_warm_app.py"], bench.app, {}))
        cold, hot = Side("launcher run, cold", lambda: run("0")), Side("launcher run, warm", run_warm)
        try:
            bench.turns(local, cold, hot)
        finally:
            call("disconnect", "host")
    for side in (local, cold, hot):
        bench.note(
            f"{side.name}: to its first line", f"{side.median(first_seconds):.2f} s ({side.spread(first_seconds)})"
        )
    bench.add("first line, cold, over local", median_ratio(cold, local, first_seconds), None)
    bench.add("first line, warm, over local", median_ratio(hot, local, first_seconds), 0.25, less_is_better=True)
    bench.add("first line, warm, over cold", median_ratio(hot, cold, first_seconds), None)


def wait_warm(store: WarmStore) -> None:
    """Wait until an interpreter waits for the next run, and all else that is to wait does."""
    deadline = time.monotonic() + 60
    while True:
        records = store.records()
        if any(not one.is_fork_server for one in records) and all(map(store.is_waiting, records)):
            return
        if time.monotonic() > deadline:
            raise SystemExit("benchmarks: no interpreter waits for the next run")
        time.sleep(0.05)


def long(bench: Bench) -> None:
    """100,000 no-op jobs over the local transport: memory of controller and agent, and whether the rate holds."""
    count = bench.many
    side = bench.side("launcher, local transport", "ours", "many", jobs=count, every=count // 10)
    marks = side.run().figures["marks"]
    first, last, before = marks[0], marks[-1], marks[-2]
    for mark in marks:
        print(
            f"  {mark['jobs']:,} jobs: {mark['seconds']:.0f} s, controller {mark['controller'] / MIB:.0f} MiB, "
            f"agent {mark['agent'] / MIB:.0f} MiB",
            flush=True,
        )
    rate = (last["jobs"] - before["jobs"]) / (last["seconds"] - before["seconds"])
    bench.note(f"{count:,} jobs, local transport: jobs/s", f"{count / last['seconds']:.0f}")
    for who in ("controller", "agent"):
        what = f"{who}'s memory at {count:,} jobs over that at {first['jobs']:,} ({last[who] / MIB:.0f} MiB)"
        bench.add(what, last[who] / first[who], 1.3, less_is_better=True)
    bench.add("rate of the last tenth over the first's", rate / (first["jobs"] / first["seconds"]), 0.8)


def hosts(bench: Bench) -> None:
    """Time to the first JobReturn with many hosts, some dead and some with links that drop, over that with three good
    hosts.
    """
    many, dead, flapping = (20, 4, 2) if bench.is_quick else (300, 40, 10)

    def side(count: int, *more: int) -> Side:
        words = [str(word) for word in (count, *more)]
        options = [part for pair in zip(("--hosts", "--dead", "--flapping"), words, strict=True) for part in pair]

        def run() -> Sample:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.many", *options], stdout=subprocess.PIPE, check=True
            )
            figures = json.loads(done.stdout.splitlines()[-1])
            return Sample(figures, figures["seconds"])

        return Side(f"{count} hosts", run)

    few, all_of_them = side(3, 0, 0), side(many, dead, flapping)
    bench.turns(few, all_of_them)
    last = all_of_them.samples[-1].figures
    if last["completed"] != 2 * many or last["ready"] + last["unusable"] != many:
        raise SystemExit(
            f"{last['completed']} jobs completed, {last['ready']} hosts ready, {last['unusable']} unusable: {last}"
        )
    for name in ("ready", "unusable", "cut", "threads", "descriptors"):
        bench.note(f"{many} hosts: {name}", str(last[name]))
    bench.note(f"{many} hosts: controller's peak memory, MiB", f"{last['peak_rss'] / MIB:.0f}")
    bench.note(f"{many} hosts: seconds to the last JobReturn", f"{last['seconds']:.1f}")
    ratio = median_ratio(all_of_them, few, lambda sample: float(sample.figures["first"]))
    bench.add(f"first JobReturn with {many} hosts over that with 3", ratio, 3.0, less_is_better=True)


def sharing(bench: Bench) -> None:
    """Idle slots: two hosts of which one is slower, and uneven jobs by ask and tell."""
    jobs, seconds = (20, 0.05) if bench.is_quick else (200, 0.5)
    two = bench.side("two hosts", "ours", "sharing", jobs=jobs, seconds=seconds, slowness=4, host=bench.spec())
    told = {"jobs": 24 if bench.is_quick else 96, "slots": 4, "seconds": 0.5}
    one_by_one = bench.side("ask and tell", "ours", "uneven", **told, in_batches=False)
    batches = bench.side("batches", "ours", "uneven", **told, in_batches=True)
    bench.turns(two, one_by_one, batches)
    ratio = statistics.median(_seconds(one) / float(one.figures["ideal"]) for one in two.samples)
    bench.add("two hosts, one four times as fast: time over the ideal", ratio, 1.1, less_is_better=True)
    for side, target in ((one_by_one, 0.95), (batches, None)):
        busy = statistics.median(float(one.figures["busy"]) for one in side.samples)
        bench.add(f"uneven jobs, 4 slots, {side.name}: part of the slots' time that jobs had", busy, target)


def report(bench: Bench) -> None:
    """The page of `launcher report`: CPU time of the command for 10,000 jobs, and bytes without the data of jobs."""
    environ = {**bench.host.environ, "XDG_STATE_HOME": str(bench.host.folder / "state")}
    launched = str(Path(sys.executable).parent / "launcher")
    count = 200 if bench.is_quick else 10_000

    def made(jobs: int) -> tuple[Side, Path]:
        folder = bench.host.folder / f"report{jobs}"
        task, sweep = f"{bench.app / 'bench_app.py'}:noop", f"number=range({jobs})"
        cpu_seconds(
            [launched, "multirun", task, sweep, "--isolation", "reuse", "--folder", str(folder), "--quiet"], environ
        )
        side = Side(f"report{jobs}", lambda: Sample({}, cpu_seconds([launched, "report", str(folder)], environ)))
        return side, folder / "report.html"

    (few, small), (many, large) = made(2), made(count)
    take_turns([few, many], bench.runs, lambda _: None)
    bench.add(f"launcher report of {count:,} jobs: seconds of CPU", many.median(_command), 3.0, less_is_better=True)
    bench.note("the same of two jobs", f"{few.median(_command):.2f} s")
    bench.add("its page with two jobs, in MB", small.stat().st_size / 1e6, 2.0, less_is_better=True)
    bench.note(f"its page with {count:,} jobs", f"{large.stat().st_size / 1e6:.1f} MB")


SUITES: dict[str, Callable[[Bench], None]] = {
    "jobs": jobs,
    "profile": profile,
    "first": first,
    "delay": delay,
    "bulk": bulk,
    "second": second,
    "unchanged": unchanged,
    "hydra": hydra,
    "commands": commands,
    "warm": warm,
    "hosts": hosts,
    "sharing": sharing,
    "report": report,
    "long": long,
}
