"""This project's sides, through its public Python API, with hooks on both sides.

Rule: as in peers.py, the clock starts before the first call into the product and stops when the last result is there.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any


def jobs(
    jobs: int,
    host: dict[str, Any] | None,
    slots: int | None = 2,
    isolation: str = "auto",
    *,
    is_list: bool = False,
) -> dict[str, Any]:
    """Run no-op jobs, end to end. `steady` is the rate from the first JobReturn to the last, without connecting. `is_list`: all configs are known
    from the beginning, as those of a command are.
    """
    from bench_app import Hooks, noop

    import launcher

    arrivals = Arrivals()
    configs: Any = ({"number": number} for number in range(jobs))
    begun = time.perf_counter()
    configs = list(configs) if is_list else configs
    returns = launcher.multirun(
        noop, configs, callbacks=[Hooks()], observers=[arrivals], isolation=isolation, **_where(host, slots)
    )
    seconds = time.perf_counter() - begun
    completed = sum(1 for job_return in returns if job_return.status.name == "COMPLETED")
    if completed != jobs:
        failed = next(job_return for job_return in returns if job_return.status.name != "COMPLETED")
        raise SystemExit(f"{jobs - completed} of {jobs} jobs failed, one with {failed.error}")
    return {
        "seconds": seconds,
        "jobs": jobs,
        "first": arrivals.first - begun,
        "first_at": time.time() - (time.perf_counter() - arrivals.first),
        "steady": (arrivals.count - 1) / max(arrivals.last - arrivals.first, 1e-9),
    }


def first(host: dict[str, Any]) -> dict[str, Any]:
    """Run one job, from command start to its JobReturn. The parent process has the clock."""
    from bench_app import Hooks, noop

    import launcher

    where = _where(host, 2)
    job_return = launcher.run(
        noop,
        {},
        callbacks=[Hooks()],
        observers=[Arrivals(say_first=True)],
        host=where["hosts"][0],
        folder=where["folder"],
    )
    if job_return.status.name != "COMPLETED":
        raise SystemExit(f"failed: {job_return.error}")
    return {}


def environment(host: dict[str, Any]) -> dict[str, Any]:
    """Run one job in an environment. `build` and `first` are the seconds from the word that it is built, and that files are sent, to
    the word that it is there.
    """
    from bench_app import noop

    import launcher

    told: dict[str, float] = {}
    keys: list[str] = []

    def observe(event: Any) -> None:
        if event.kind == "environment":
            told.setdefault(event.state, time.perf_counter())
        elif event.kind == "environment_ready":
            told["ready"] = time.perf_counter()
            keys.append(event.key)

    where = _where(host, 1)
    job_return = launcher.run(noop, {}, observers=[observe], host=where["hosts"][0], folder=where["folder"])
    if job_return.status.name != "COMPLETED":
        raise SystemExit(f"failed: {job_return.error}")
    since = {
        name: told["ready"] - told[state]
        for name, state in (("build", "building"), ("first", "sending"))
        if state in told
    }
    return {"key": keys[0], **since}


def sharing(jobs: int, seconds: float, slowness: int, host: dict[str, Any]) -> dict[str, Any]:
    """Run equal jobs on two hosts with a slot each, this machine and a slower one, from the first JobReturn to the last one.

    `ideal`: the same time if no slot were ever idle.
    """
    from bench_app import wait

    import launcher

    arrivals = Arrivals()
    hosts = [{"name": "local", "address": "local"}, {**host, "slots": 1, "env": {"SLOWNESS": str(slowness)}}]
    with tempfile.TemporaryDirectory() as folder:
        configs = ({"seconds": seconds} for _ in range(jobs))
        launcher.multirun(wait, configs, hosts=hosts, observers=[arrivals], folder=Path(folder) / "out")
    rate = (1 + 1 / slowness) / seconds
    return {"seconds": arrivals.last - arrivals.first, "ideal": (arrivals.count - 1) / rate}


def uneven(jobs: int, slots: int, seconds: float, *, in_batches: bool) -> dict[str, Any]:
    """Run uneven jobs that are chosen as others end, or in batches as a sweeper does. `busy`: the part of the slots' time that jobs had."""
    import concurrent.futures

    from bench_app import wait

    import launcher

    lengths = [seconds * (1 + 3 * (num % 4 == 0)) for num in range(jobs)]
    with (
        tempfile.TemporaryDirectory() as folder,
        launcher.Session.open(hosts=[f"local/{slots}"], folder=Path(folder) / "out") as session,
    ):
        session.submit(wait, {"seconds": 0}).result()
        begun = time.perf_counter()
        waiting, under_way = list(lengths), set()
        while waiting or under_way:
            if not (in_batches and under_way):
                while waiting and len(under_way) <= slots - in_batches:
                    under_way.add(session.submit(wait, {"seconds": waiting.pop(0)}))
            _, under_way = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
        took = time.perf_counter() - begun
    return {"seconds": took, "busy": sum(lengths) / (slots * took)}


def large_value(size: int, host: dict[str, Any]) -> dict[str, Any]:
    """Return a small value and then a large one, one after the other on one slot. Neither is read.

    `seconds` is from the first JobReturn to the second, so that connection, agent and application are warm.
    """
    from bench_app import Hooks, large

    import launcher

    arrivals = Arrivals()
    configs = [{"size": 1}, {"size": size}]
    returns = launcher.multirun(large, configs, callbacks=[Hooks()], observers=[arrivals], **_where(host, 1))
    if arrivals.count != 2 or any(job_return.status.name != "COMPLETED" for job_return in returns):
        raise SystemExit(f"failed: {[job_return.error for job_return in returns]}")
    return {"seconds": arrivals.last - arrivals.first, "bytes": size}


def many(jobs: int, every: int) -> dict[str, Any]:
    """Run very many jobs over the local transport.

    After each `every` jobs, measure the time and the memory of controller and agent.
    """
    from bench_app import Hooks, noop

    import launcher

    marks = Marks(every)
    configs = ({"number": number} for number in range(jobs))
    returns = launcher.multirun(noop, configs, callbacks=[Hooks()], observers=[marks], **_where(None, 2))
    if len(returns) != jobs or any(count != 1 for count in marks.returned[:jobs]) or marks.failed:
        raise SystemExit(f"not every job returned once and completed: {len(returns)} of {jobs}, {marks.failed} failed")
    return {"jobs": jobs, "marks": marks.rows}


def spent(jobs: int, warm: int, host: dict[str, Any], sshd: int, isolation: str = "auto") -> dict[str, Any]:
    """Measure the CPU seconds of each process of a run between the `warm`th JobReturn and the last."""
    from bench_app import Hooks, noop

    import launcher

    meter = Meter(warm, jobs, sshd)
    configs = ({"number": number} for number in range(jobs))
    begun = time.process_time()
    launcher.multirun(noop, configs, callbacks=[Hooks()], observers=[meter], isolation=isolation, **_where(host, 2))
    return {"spent": meter.spent(), "jobs": jobs - warm, "controller": time.process_time() - begun}


class Meter:
    """An observer that reads the CPU clocks of the run's processes at two JobReturns."""

    def __init__(self, warm: int, jobs: int, sshd: int) -> None:
        self._at = (warm, jobs)
        self._sshd = sshd
        self._count = 0
        self._run = ""
        self._read: list[dict[str, float]] = []
        self._zygotes = 0

    def __call__(self, event: Any) -> None:
        """Read the clocks at the two JobReturns."""
        if event.kind == "run_started":
            self._run = event.run
        if event.kind == "job_returned":
            self._count += 1
            if self._count in self._at:
                self._read.append(self._clocks())

    def spent(self) -> dict[str, float]:
        """Return the seconds between the two moments, by process.

        Raises:
            RuntimeError: the run's zygote was not found among the processes.
        """
        if not self._zygotes:
            raise RuntimeError("no zygote of the run was found; does zygote/entry.py still start it?")
        before, after = self._read
        return {name: after[name] - before.get(name, 0.0) for name in after}

    def _clocks(self) -> dict[str, float]:
        processes = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
        clocks = {
            "controller": time.process_time(),
            "agent": 0.0,
            "zygote": 0.0,
            "jobs": 0.0,
            "sshd": 0.0,
            "connect": 0.0,
        }
        spool = f"/runs/{self._run}/"
        for pid, (parent, own, reaped) in processes.items():
            if _is_zygote(pid) and not _is_zygote(parent) and _holds(parent, spool):
                self._zygotes += 1
                clocks["zygote"] += own
                # A job's CPU time is added to that of the zygote's children when the zygote has reaped it.
                clocks["jobs"] += reaped
                clocks["agent"] += processes[parent][1] if parent in processes else 0.0
            elif _is_zygote(pid) and _is_zygote(parent):
                # A job, or a worker, which is reaped only at the end of the run.
                clocks["jobs"] += own + reaped
            elif self._sshd in _ancestors(pid, processes):
                clocks["sshd" if _command(pid).startswith(b"sshd") else "connect"] += own
        return clocks


_TICK = os.sysconf("SC_CLK_TCK")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> tuple[int, float, float] | None:
    """Return the parent, the process's own CPU seconds, and those of its reaped children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK, (int(fields[13]) + int(fields[14])) / _TICK


def _ancestors(pid: int, processes: dict[int, tuple[int, float, float]]) -> list[int]:
    found = []
    while pid in processes and processes[pid][0] > 1:
        pid = processes[pid][0]
        found.append(pid)
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_zygote(pid: int) -> bool:
    return b"/zygote/entry.py" in _command(pid)


def _holds(pid: int, spool: str) -> bool:
    try:
        return any(spool in _target(each) for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class Marks:
    """An observer that records the clock and the memory of controller and agent, each time after a number of
    JobReturns.
    """

    def __init__(self, every: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.returned = bytearray()
        self.failed = 0
        self._every = every
        self._count = 0
        self._begun = time.perf_counter()
        self._run = ""

    def __call__(self, event: Any) -> None:
        """Count a JobReturn, and measure at the marks."""
        if event.kind == "run_started":
            self._run = event.run
        if event.kind != "job_returned":
            return
        self._count += 1
        self.failed += event.status != "COMPLETED"
        if event.num >= len(self.returned):
            self.returned.extend(bytes(event.num + 1000 - len(self.returned)))
        self.returned[event.num] += 1
        if self._count % self._every == 0:
            seconds = time.perf_counter() - self._begun
            row = {"jobs": self._count, "seconds": seconds, "controller": _resident("self"), "agent": self._agent()}
            self.rows.append(row)
            print(f"MARK {row}", flush=True)

    def _agent(self) -> int:
        """Return the resident bytes of the run's agent.

        It is the process with the run's spool open that is not a zygote.
        """
        for pid in _pids():
            if pid != os.getpid() and not _is_zygote(pid) and _holds(pid, f"/runs/{self._run}/"):
                return _resident(str(pid))
        raise SystemExit("the run's agent was not found")


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # closed meanwhile


def _resident(pid: str) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Arrivals:
    """An observer that records when the first and the last JobReturn came."""

    def __init__(self, *, say_first: bool = False) -> None:
        self.first = 0.0
        self.last = 0.0
        self.count = 0
        self._say_first = say_first

    def __call__(self, event: Any) -> None:
        """Record the time of a JobReturn."""
        if event.kind != "job_returned":
            return
        self.last = time.perf_counter()
        self.count += 1
        if self.count == 1:
            self.first = self.last
            if self._say_first:
                print("FIRST", flush=True)


def _where(host: dict[str, Any] | None, slots: int | None) -> dict[str, Any]:
    from launcher.hosts.host_spec import HostSpec

    folder = Path(tempfile.mkdtemp(prefix="launcher-benchmarks-run-")) / "run"
    spec = HostSpec(name="local", address="local", slots=slots) if host is None else HostSpec(**host, slots=slots)
    return {"folder": folder, "hosts": [spec]}
