"""Slurm behind the seam `batch`: its programs, its words, its limits. Nothing else knows them.

Rule: no argument goes through a shell, and each program has a time limit, because some wait for ever where a daemon does not answer. What
`sbatch` prints when it fails decides what is known: its own refusals are final, everything else may have been taken.

Seen with Slurm 22.05. `squeue -r -t all` lists what has ended for MinJobAge seconds; no accounting is needed.
"""

import datetime as dt
import os
import re
import subprocess
import time
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from remote_agent.slurm.batch.batch import Batch, BatchError, Limits, Listed, NoAnswer, NoRoom, Phase, Refused, Request
from remote_agent.slurm.batch.classes import seconds_of

__all__ = ["Slurm"]

#: Seconds. Without its controller, each of Slurm's programs fails after nine.
_TIMEOUT = 60.0
#: What an allocation must have at its end -> the option of sbatch.
_NEEDS = {
    "partition": "--partition",
    "account": "--account",
    "time": "--time",
    "cpus": "--cpus-per-task",
    "gpus": "--gres",
    "mem": "--mem",
    "nodes": "--nodes",
    "tasks": "--ntasks",
}
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
#: Words of an end -> the kind of error that they explain.
_ENDED = {
    "BOOT_FAIL": "node_failed",
    "CANCELLED": "cancelled",
    "COMPLETED": "",
    "DEADLINE": "time_limit",
    "FAILED": "",
    "NODE_FAIL": "node_failed",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
    "TIMEOUT": "time_limit",
}
#: In what sbatch prints when it takes nothing, now or ever. Everything else is not known.
_NO_ROOM = (
    "submit limit",
    "temporarily unable to accept",
    "MaxJobCount",
    "MaxSubmitJob",
    "job array specification",
    "MaxArraySize",
)
_REFUSED = (
    "Batch job submission failed",
    "sbatch: error: invalid",
    "sbatch: error: Invalid",
    "unrecognized option",
    'Try "sbatch --help"',
)
_NO_NODE = "Requested node configuration is not available"
_MAYBE = (
    "timed out",
    "timeout",
    "Unable to contact",
    "Connection",
    "communication",
    "Zero Bytes",
    "Protocol",
    "Unspecified",
)
#: The reason of one that a node could not start, often because of its prolog.
_HELD = "launch failed requeued held"
_FIELDS = 6
_START = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
#: Seconds before the end of an allocation at which its jobs get SIGTERM.
WARNING = 60
#: The same, if `--signal` of the user's does not say it.
_UNSAID = 60.0
#: No time, in what scontrol shows.
_NEVER = ("None", "Unknown", "N/A")
#: Reasons of what never starts as it was asked for.
_HOPELESS = (
    "AccountNotAllowed",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSNotAllowed",
)


#: What slurmstepd writes into the output of an allocation that it ends -> the kind of error, and why.
_NOTICE = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+?))? \*\*\*")
_NOTICES = {
    "PREEMPTION": ("preempted", "another job has preempted its allocation"),
    "TIME LIMIT": ("time_limit", "the time of its allocation is up"),
    "NODE FAILURE": ("node_failed", "a node of its allocation has failed"),
    "JOB REQUEUE": ("node_failed", "Slurm starts its allocation again, because somebody has requeued it"),
}
#: Bytes of an output in which the notice is looked for.
_TAIL = 1 << 16


class Slurm(Batch):
    """The Slurm of this machine, with the user's own rights. `output`: a descriptor of what this allocation prints, if this is one."""

    def __init__(self, output: Optional[int] = None) -> None:
        self._output = output
        #: Slurm appends: what is there now is of starts before this one.
        self._begin = os.fstat(output).st_size if output is not None else 0

    def limits(self) -> Limits:
        """Read them from the configuration that Slurm's controller tells."""
        found = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", self._run("scontrol", "show", "config"), re.MULTILINE))
        return Limits(
            tasks=max(1, int(found.get("MaxArraySize", "1001")) - 1),
            kill_wait=_seconds(found.get("KillWait", "30")),
            remembers=_seconds(found.get("MinJobAge", "300")),
        )

    def submit(self, request: Request) -> str:
        """Submit an array; see `Batch.submit`."""
        array = "0-{}".format(request.tasks - 1)
        if request.at_once is not None:
            array += "%{}".format(request.at_once)
        needs = [
            "{}={}".format(_NEEDS[name], "gpu:" + value if name == "gpus" else value)
            for name, value in sorted(request.needs.items())
        ]
        tasks, nodes = (int(request.needs.get(name, 0)) for name in ("tasks", "nodes"))
        if tasks and nodes and tasks % nodes == 0:
            # Else Slurm may fill one node and leave another with a single task.
            needs.append("--ntasks-per-node={}".format(tasks // nodes))
        command = ["sbatch", "--parsable", "--array", array, "--job-name", request.name, "--comment", request.name]
        if request.after:
            needs.append("--dependency=afterany:{}".format(":".join(request.after)))
        if not any(one.startswith("--signal") for one in request.options):
            # To the agent alone: it knows why, and tells its jobs.
            needs.append("--signal=B:TERM@{}".format(_warning(request.needs)))
        command += ["--output", request.output, "--open-mode", "append", "--requeue", *needs, *request.options]
        try:
            if request.is_optional:
                # sbatch takes some of what no node has, and lets it wait for ever.
                said = _start([command[0], "--test-only", *command[1:]], request.script).stderr.strip()
                if _NO_NODE in said:
                    raise Refused(said[-500:])
            done = _start(command, request.script)
        except Refused:
            raise
        except BatchError as error:
            raise NoAnswer(str(error)) from None
        said = done.stderr.strip()
        found = re.match(r"([0-9]+)(;|$)", done.stdout.strip())
        if done.returncode == 0 and found:
            return found.group(1)
        if any(word in said for word in _NO_ROOM):
            raise NoRoom(said)
        if any(word in said for word in _REFUSED) and not any(word in said for word in _MAYBE):
            raise Refused(said)
        raise NoAnswer("sbatch: exit status {}; it said {!r}".format(done.returncode, said[-500:]))

    def listed(self, names: Sequence[str]) -> List[Listed]:
        """Ask squeue, once for all; see `Batch.listed`."""
        if not names:
            return []
        # The reason is the only field with free text, so it is last.
        said = self._run("squeue", "-h", "-r", "-t", "all", "--me", "-n", ",".join(names), "-o", "%A|%j|%T|%N|%S|%r")
        if said and not said.endswith("\n"):
            # What it lacks would be taken for gone.
            raise BatchError("squeue: its answer is cut off")
        found = []
        for line in said.splitlines():
            fields = line.split("|", _FIELDS - 1)
            if len(fields) == _FIELDS and fields[0].isdigit() and fields[1] in names:
                job, name, word, node, start, reason = fields
                phase = _phase(word)
                if reason == _HELD:
                    found.append(Listed(job, name, Phase.ENDED, _HELD, "node_failed", "", node, is_held=True))
                    continue
                start = start if phase is Phase.WAITING and _START.fullmatch(start) else ""
                found.append(Listed(job, name, phase, word, _ENDED.get(word, ""), _reason(reason), node, start))
        return found

    def is_hopeless(self, reason: str) -> bool:
        """Limits of a partition, of an account or of a QOS for one job do not go away; see `Batch.is_hopeless`."""
        return reason in _HOPELESS

    def cancel(self, names: Sequence[str], *, waiting_only: bool = False) -> None:
        """Call scancel; see `Batch.cancel`."""
        for name in names:
            self._run("scancel", "--name", name, *(["--state", "PENDING"] if waiting_only else []))

    def why(self, job: str, restart: int) -> Tuple[str, str]:
        """Read the notice in the output, or ask scontrol; see `Batch.why`. A warning before the time is up has no notice."""
        told = self._notice(self._begin, None)
        if told is not None:
            return told
        found = self._shown(job)
        state = found.get("JobState", "")
        if state == "PREEMPTED" or found.get("PreemptTime", "None") not in _NEVER:
            return "preempted", "another job has preempted its allocation"
        if state == "TIMEOUT" or (state == "RUNNING" and _is_near(found.get("EndTime", ""))):
            return "time_limit", "the time of its allocation is up (TimeLimit={})".format(found.get("TimeLimit", "?"))
        if found.get("Restarts", "0").isdigit() and int(found.get("Restarts", "0")) > restart:
            # Everything else that Slurm knew of this start is gone.
            return "preempted", "Slurm starts its allocation again, because another job needs what it had"
        return self._notice(self._begin, None) or ("cancelled", "somebody has cancelled its allocation")

    def why_before(self) -> Optional[Tuple[str, str]]:
        """Read the last notice before this start; see `Batch.why_before`."""
        return self._notice(max(0, self._begin - _TAIL), self._begin)

    def _notice(self, begin: int, end: Optional[int]) -> Optional[Tuple[str, str]]:
        """The last notice in a part of the output; None if there is none, or it names no reason that is known."""
        if self._output is None:
            return None
        try:
            with open("/proc/self/fd/{}".format(self._output), "rb") as file:
                size = os.fstat(file.fileno()).st_size if end is None else end
                file.seek(max(begin, size - _TAIL))
                text = file.read(max(0, size - file.tell())).decode("utf-8", "replace")
        except OSError:
            return None  # it is no file, or not readable; scontrol may know
        reasons = _NOTICE.findall(text)
        return _NOTICES.get(reasons[-1]) if reasons else None

    def go_again(self, job: str) -> None:
        """Requeue it, if it runs and another job is to have what it has; see `Batch.go_again`."""
        found = self._shown(job)
        if found.get("JobState") == "RUNNING" and found.get("PreemptTime", "None") not in _NEVER:
            self._run("scontrol", "requeue", job)

    def warning(self, needs: Mapping[str, str], options: Sequence[str]) -> float:
        """As the last `--signal` says it; see `Batch.warning`."""
        said = [re.search(r"@([0-9]{1,6})$", one) for one in options if one.startswith("--signal")]
        if said:
            return float(said[-1].group(1)) if said[-1] is not None else _UNSAID
        return _warning(needs)

    def wake(self, job: str) -> None:
        """Send SIGCONT, which does nothing to a process that does not expect it."""
        self._run("scancel", "--batch", "--signal", "CONT", job)

    def node(self) -> str:
        """As its slurmd is called; see `Batch.node`."""
        return os.environ.get("SLURMD_NODENAME") or super().node()

    def variables(self) -> Tuple[str, str]:
        """The second one is not set when a job starts for the first time."""
        return "SLURM_JOB_ID", "SLURM_RESTART_COUNT"

    def _shown(self, job: str) -> Dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self._run("scontrol", "-o", "show", "job", job)))

    @staticmethod
    def _run(*command: str) -> str:
        done = _start(command, "")
        if done.returncode:
            raise BatchError(
                "{}: exit status {}; it said {!r}".format(command[0], done.returncode, done.stderr.strip()[-500:])
            )
        return done.stdout


def _start(command: Sequence[str], given: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise BatchError(
            "{} is not on the PATH of a login that runs a command; is this a login node of a Slurm cluster?".format(
                command[0]
            )
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BatchError("{}: {}".format(command[0], error)) from None


def _phase(word: str) -> Phase:
    if word in _WAITING:
        return Phase.WAITING
    return Phase.ENDED if word in _ENDED else Phase.ALIVE


def _reason(text: str) -> str:
    return "" if text in ("None", "(null)") else text


def _is_near(end: str) -> bool:
    """Whether a time of Slurm's is near, in the clock and the zone of this node."""
    try:
        return dt.datetime.fromisoformat(end).timestamp() - time.time() < 2 * WARNING + 60
    except ValueError:
        return False


def _warning(needs: Mapping[str, str]) -> int:
    """How many seconds before its end an allocation is warned. Slurm may be a minute early."""
    seconds = seconds_of(needs.get("time", ""))
    return max(1, min(WARNING, seconds // 4)) if seconds else WARNING


def _seconds(text: str) -> float:
    """Read a number of Slurm's configuration, such as `30 sec`."""
    found = re.match(r"[0-9]+", text)
    return float(found.group()) if found else 0.0
