"""Check whether a host can run jobs, step by step, and say what to do if it cannot.

Rule: every step is a step of a run, and the same code does it. Nothing of an application is sent, and what the check makes
is removed afterwards. A step that was not reached is not guessed.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from launcher import events
from launcher.agents.queries.gpus import GpuList, HostGpu
from launcher.agents.queries.query import AgentQuery
from launcher.environments.lock import Lock
from launcher.errors import AgentError, HostError, InventoryError, PackagesError
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from launcher.runs import index as run_index
from launcher.session.session import Session, SessionConf
from launcher.setup.environments import source_of
from launcher.setup.kinds.probe import ProbeSetup
from launcher.transports.choice import choose
from launcher.transports.factory import ssh_options
from launcher.transports.ssh import config
from launcher.util.text.quantities import size
from remote_agent.job import JobReturn

__all__ = ["Step", "StepOutcome", "examine"]

_PROBE = "remote_agent.probe:probe"
#: The steps of a login, and the phases of an error that belong to each.
_WAY = {"resolve": "connection", "connect": "connection", "host key": "host key", "authenticate": "login"}
_LOW_DISK = 1 << 30
#: A host's clock may differ by this many seconds before a warning.
_CLOCK = 5.0
_TIMEOUT = 60.0
#: What stands before the next step in an error of an environment.
_NEXT = "\n    next: "


class StepOutcome(enum.Enum):
    """The outcome of a step. `WARNING`: jobs run, but something is wrong."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: its name, its outcome, what was found, and what to do about it."""

    name: str
    outcome: StepOutcome
    detail: str
    next_step: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as plain data."""
        return {**dataclasses.asdict(self), "outcome": self.outcome.value}


def examine(spec: HostSpec, options: LaunchConf, lock: Lock | None = None) -> Iterator[Step]:
    """The steps for one host, each as soon as it is known; a failed step is the last one.

    Args:
        lock: the packages of the environment that the host would get. It is not built.
    """
    if not spec.is_local:
        try:
            yield _ok("ssh configuration", _target(spec))
        except InventoryError as error:
            yield Step("ssh configuration", StepOutcome.FAILED, str(error), "check ~/.ssh/config")
            return
        try:
            choice = choose(spec.name, ssh_options(spec), spec.ssh or options.ssh)
        except HostError as error:
            yield Step("way", StepOutcome.FAILED, error.message_of(spec.name), error.next_step)
            return
        yield _ok("way", f"{choice.name}: {choice.why}")
    steps = ["connection", "host key", "login"] if not spec.is_local else []
    try:
        with AgentQuery(spec, "clean") as talk:
            bundle = "was sent now" if talk.has_sent_bundle else "was there already"
            left: list[Any] = talk.survey()
            waiting = [item for item in left if isinstance(item, dict) and item.get("kind") == "warm"]
            # What a login node has of GPUs, no job of a cluster gets.
            gpus = None if spec.slurm is not None else talk.gpus(spec.gpus)
            packages, planned = _packages_step(talk, spec, options, lock) if lock is not None else (None, False)
    except HostError as error:
        failed = _WAY.get(error.phase, "agent")
        for name in steps[: steps.index(failed)] if failed in steps else steps:
            yield _ok(name, "")
        yield Step(failed, StepOutcome.FAILED, error.message_of(spec.name), error.next_step)
        return
    for name in steps:
        yield _ok(name, "")
    if packages is not None:
        yield packages
        if packages.outcome is StepOutcome.FAILED:
            return
    if gpus is not None and gpus.why:
        yield Step("GPUs", StepOutcome.FAILED, gpus.why, "correct `gpus` of this host in the hosts file")
        return
    if spec.slurm is not None:
        yield _ok("slurm", "one job is queued now, as a run would queue it; this goes on when it has run on a node")
    yield from _run_probe(spec, options, bundle, lock if planned else None, gpus, len(waiting))


def _ok(name: str, detail: str) -> Step:
    return Step(name, StepOutcome.OK, detail)


def _target(spec: HostSpec) -> str:
    target = config.resolve(spec.address, spec.user, spec.port, config_file=spec.ssh_config, is_any_login=True)
    given = [spec.identity] if spec.identity else target.identity_files
    keys = [name for name in given if os.path.exists(name)]
    if target.identity_agent and not spec.identity:
        keys.append("the keys of ssh-agent")
    parts = [f"{target.user}@{target.hostname} port {target.port}", f"keys: {', '.join(keys) or 'none'}"]
    if target.proxy_jump or target.proxy_command:
        parts.append(f"through {', '.join(target.proxy_jump) or 'a ProxyCommand'}")
    return "; ".join(parts)


def _packages_step(talk: AgentQuery, spec: HostSpec, options: LaunchConf, lock: Lock) -> tuple[Step, bool]:
    """What would be built there, and whether it is there already."""
    python = spec.python or options.python
    facts = talk.facts(python)
    try:
        plan = source_of(lock, None, options, may_build=False).plan(facts, python, spec.downloads or False)
    except PackagesError as error:
        why, _, next_step = str(error).removeprefix("environment: ").partition(_NEXT)
        return Step("packages", StepOutcome.FAILED, why, next_step or "see docs/environments.md"), False
    found = talk.compare(plan.spec)
    missing_files, files, missing, total, free = (
        _number(spec.name, found, name) for name in ("missing_files", "files", "missing_bytes", "bytes", "free")
    )
    there = [one["version"] for one in facts.pythons if one["path"] == plan.spec.python]
    version = there[0] if there else "of uv, which fetches it there"
    names = (
        f"{len(plan.spec.wheels)} of {lock.name} for Python {version} ({plan.spec.python}), "
        f"as environment {plan.spec.key[:12]}"
    )
    if found.get("is_there") is True:
        return _ok("packages", f"{names}: it is there"), True
    detail = f"{names}: a run would send {missing_files} of {files} files ({size(missing)} of {size(total)}), and build it; {size(free)} free"
    if spec.downloads:
        fetched = plan.addresses(spec.downloads)
        sizes = [wheel.size for wheel in plan.spec.files if wheel.sha256 in fetched]
        number = f"{len(sizes)} file" if len(sizes) == 1 else f"{len(sizes)} files"
        detail += f"; the host may fetch {number} ({size(sum(sizes))}) itself"
    lacking = found.get("lacking")
    if isinstance(lacking, str) and lacking:
        why, _, next_step = lacking.partition(_NEXT)
        return Step("packages", StepOutcome.FAILED, f"{detail}: {why}", next_step), False
    return _ok("packages", detail), False


def _number(host: str, found: Mapping[str, Any], name: str) -> int:
    number = found.get(name)
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise AgentError(host, "session", "its answer to 'compare_environment' cannot be read")
    return number


def _run_probe(
    spec: HostSpec, options: LaunchConf, bundle: str, lock: Lock | None, gpus: GpuList | None, waiting: int
) -> Iterator[Step]:
    """Run one job that reports what it finds on the host; yield the steps from the agent's welcome on.

    Args:
        lock: of an environment that is there; the job runs in it.
        waiting: how many processes wait there for the next run.
    """
    seen: list[events.Event] = []
    with tempfile.TemporaryDirectory(prefix="launcher-doctor-") as folder:
        alone = dataclasses.replace(
            options, hosts=(), hosts_file=None, environment=None, extras=(), groups=(), warm=0.0
        )
        # Without a GPU, because others may have them all.
        bare = dataclasses.replace(spec, environment=None, extras=(), gpus=None if spec.slurm is not None else 0)
        setup = ProbeSetup.make(
            "RUN", None, [{}], hosts=[bare], callbacks=(), folder=folder, options=alone, results="safe",
            outputs=False, timeout=_TIMEOUT, on_host_loss="fail", host_loss_timeout=_TIMEOUT,
        )  # fmt: skip
        # By name, because the agent has the probe itself: no project and no script is sent.
        locks = {spec.name: lock} if lock is not None else {}
        setup = dataclasses.replace(setup, task=_PROBE, task_name="doctor", root=None, main_module=None, locks=locks)
        try:
            with Session(setup, SessionConf([seen.append])) as session:
                began = time.time()
                session.drive([({}, ())])
                ended = time.time()
            returned = session.returns[0]
            found = _answer(returned)
        finally:
            run_index.remove(setup.run_id)
    yield from _agent_steps(seen, bundle, spec, gpus, told=returned.error.message if returned.error else None)
    if found is not None:
        yield from _environment_steps(found, began, ended)
        yield from _warm_steps(waiting, _why_cold(spec, options, found["cold"]))
    elif returned.error is None:
        yield Step(
            "environment",
            StepOutcome.FAILED,
            "the host sent a report that cannot be read",
            "check that this is the host that you mean",
        )
    elif not any(isinstance(event, events.HostUnusable) for event in seen):
        yield Step("environment", StepOutcome.FAILED, str(returned.error), "check `python:` and `setup:` of this host")


def _answer(returned: JobReturn) -> dict[str, Any] | None:
    """What the probe found; None if the answer is not one of our probe: a host may send anything."""
    if returned.error is not None:
        return None
    try:
        found = returned.return_value
        packages = {str(name): (str(one["version"]), bool(one["is_ours"])) for name, one in found["packages"].items()}
        return {
            **{name: str(found[name])[:1000] for name in ("python", "executable", "folder")},
            "cold": str(found["cold"])[:1000],
            **{name: float(found[name]) for name in ("time", "free")},
            "packages": {name: {"version": version, "is_ours": ours} for name, (version, ours) in packages.items()},
        }
    except Exception:  # noqa: BLE001 - decoding and reading what somebody made up may raise anything
        return None


def _agent_steps(
    seen: list[events.Event], bundle: str, spec: HostSpec, gpus: GpuList | None, *, told: str | None
) -> Iterator[Step]:
    """What the run said about the host, without what the job's error says."""
    ready = [event for event in seen if isinstance(event, events.HostReady)]
    if ready:
        yield _ok("agent", f"Python {ready[0].python}; its code {bundle}; the cache and state folders can be written")
    if ready and gpus is None:
        yield _ok("slots", f"at most {ready[0].slots} jobs at once on the nodes")
    elif ready and gpus is not None:
        chosen = [gpu for gpu in gpus.gpus if gpu.is_chosen]
        most = min(spec.gpus, len(chosen)) if isinstance(spec.gpus, int) else len(chosen)
        # The check had no GPU. A run has as many slots as GPUs, if nobody says their number.
        slots = ready[0].slots if spec.slots is not None else max(most, 1)
        yield _ok("slots", f"{slots}, GPUs {', '.join(gpu.uuid for gpu in chosen)}" if most else f"{slots}, no GPU")
        yield from _gpu_steps(gpus)
    # A note that names no host is of the run: that its end takes a moment, such as with Slurm's allocations.
    said = [
        event for event in seen if isinstance(event, events.Warned) or (isinstance(event, events.Note) and event.host)
    ]
    logout = [event.message for event in said if isinstance(event, events.Note) and event.topic == "logout"]
    rest = [
        event.message for event in said if event.message not in logout and (told is None or told not in event.message)
    ]
    if ready and not spec.is_local:
        yield Step(
            "logout",
            StepOutcome.WARNING if logout else StepOutcome.OK,
            "; ".join(logout) or "jobs outlive the connection",
        )
    yield from (Step("note", StepOutcome.WARNING, message) for message in rest)
    for event in seen:
        if isinstance(event, events.HostUnusable):
            yield Step("environment" if ready else "agent", StepOutcome.FAILED, event.why, event.next_step)


def _gpu_steps(found: GpuList) -> Iterator[Step]:
    """Who has the GPUs now that a run would ask for."""
    chosen = [gpu for gpu in found.gpus if gpu.is_chosen]
    if not chosen:
        return
    taken = [f"{gpu.uuid} {_taken(gpu)}" for gpu in chosen if gpu.holder is not None or gpu.others]
    detail = f"{len(chosen) - len(taken)} of {len(chosen)} are free"
    partly = f"; its GPUs can be read in part only: {found.error}" if found.error else ""
    yield Step(
        "GPUs",
        StepOutcome.WARNING if found.error or len(taken) == len(chosen) else StepOutcome.OK,
        "; ".join([detail, *taken]) + partly,
        "jobs wait until a GPU is free; `launcher gpus` shows for whom" if len(taken) == len(chosen) else "",
    )


def _taken(gpu: HostGpu) -> str:
    if gpu.holder is None:
        return f"is used by {', '.join(sorted({one.user for one in gpu.others}))}, and not leased"
    if gpu.holder.run:
        return f"is leased to run {gpu.holder.run} of {gpu.holder.user}"
    return f"is taken by {gpu.holder.user}, and not for a run"


def _why_cold(spec: HostSpec, options: LaunchConf, told: str) -> str:
    """Why jobs of the next run would not start warm; empty if they may. `told`: what the host says for itself."""
    if options.warm <= 0:
        return "none is kept, because `warm` is 0"
    if told:
        return f"none is kept: {told}"
    lines = [
        name
        for name, value in (
            ("env", spec.env or options.env),
            ("forward_env", options.forward_env),
            ("setup", spec.setup or options.setup),
        )
        if value
    ]
    return f"jobs have none, because of `{lines[0]}`; the agent may" if lines else ""


def _warm_steps(waiting: int, why: str) -> Iterator[Step]:
    """What waits for the next run, and why nothing would."""
    number = f"{waiting} {'process waits' if waiting == 1 else 'processes wait'} for the next run" if waiting else ""
    detail = "; ".join(part for part in (number, why) if part)
    if detail:
        yield _ok("warm starts", detail)


def _environment_steps(found: dict[str, Any], began: float, ended: float) -> Iterator[Step]:
    """What the probe found in the environment of the jobs."""
    packages = ", ".join(
        f"{name} {one['version']}{' (sent by the launcher)' if one['is_ours'] else ''}"
        for name, one in found["packages"].items()
    )
    yield _ok("environment", f"Python {found['python']} ({found['executable']}); {packages}")
    low = found["free"] < _LOW_DISK
    yield Step(
        "disk", StepOutcome.WARNING if low else StepOutcome.OK, f"{found['free'] / (1 << 30):.1f} GiB free in {found['folder']}",
        "set `workdir:` for this host to a folder with more room" if low else "",
    )  # fmt: skip
    # The probe read its clock between these two times.
    off = max(began - found["time"], found["time"] - ended, 0.0)
    yield Step(
        "clock",
        StepOutcome.WARNING if off > _CLOCK else StepOutcome.OK,
        f"differs from this machine's by {off:.0f} s or more; the times in JobReturns are the host's"
        if off > _CLOCK
        else "agrees with this machine's",
    )
