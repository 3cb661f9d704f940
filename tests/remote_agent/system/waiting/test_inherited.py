"""What a process inherits, as the system shows it: what each login numbers anew is left out, and each limit counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.system.waiting.inherited import free_memory, inherited, split_variables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show it")


class System:
    """The files of a system with cgroups of version 2, and memory of 1000 kB."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.cgroups = folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:      10 kB\nMemAvailable:    600 kB\n")

    def login(self, number: int, **limits: str) -> None:
        """Have the process be in the scope of this login."""
        scope = f"user.slice/user-7.slice/session-{number}.scope"
        (self.proc / "self" / "cgroup").write_text(f"0::/{scope}\n")
        folder = self.cgroups / scope
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("memory.max", "pids.max"):
            (folder / file).write_text("max\n")
        (folder / "cpu.max").write_text("max 100000\n")
        self.limit(scope, **limits)

    def limit(self, group: str, **limits: str) -> None:
        """Set limits of a cgroup; `_` is a dot."""
        for name, value in limits.items():
            (self.cgroups / group / name.replace("_", ".", 1)).write_text(value + "\n")

    def inherited(self) -> list[str]:
        """What a process inherits there."""
        return inherited(str(self.proc / "self"), str(self.cgroups))


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A system where nothing is limited."""
    made = System(tmp_path)
    made.login(1)
    return made


def test_the_scope_of_a_login_does_not_count(system: System) -> None:
    """The system numbers it anew each time."""
    before = system.inherited()
    system.login(2)
    assert system.inherited() == before


@pytest.mark.parametrize("group", ["user.slice", "user.slice/user-7.slice", "user.slice/user-7.slice/session-1.scope"])
def test_a_limit_of_any_cgroup_above_counts(group: str, system: System) -> None:
    """Memory, CPU time and processes may be limited anywhere."""
    before = system.inherited()
    system.limit(group, memory_max="500000", cpu_max="50000 100000")
    assert [line for line in system.inherited() if line not in before] == ["cpu.max 50000 100000", "memory.max 500000"]


def test_limits_of_version_1_count(system: System) -> None:
    """Each controller has a tree of its own there."""
    (system.proc / "self" / "cgroup").write_text(
        "4:memory:/a/b\n1:name=systemd:/user.slice/user-7.slice/session-1.scope\n"
    )
    folder = system.cgroups / "memory" / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    before = system.inherited()
    (folder / "memory.limit_in_bytes").write_text("4096\n")
    assert [line for line in system.inherited() if line not in before] == ["memory.limit_in_bytes 4096"]


@pytest.mark.parametrize(
    "change",
    [
        "ulimit -S -n 100",
        "renice -n $(($(nice) < 19 ? $(nice) + 1 : 18)) $$ >/dev/null",
        f"taskset -p -c {min(os.sched_getaffinity(0))} $$ >/dev/null",
    ]
    if sys.platform == "linux"
    else [],
)
def test_what_a_shell_sets_for_its_children_counts(change: str) -> None:
    """The real system is asked."""
    code = "import remote_agent.system.waiting.inherited as one; print(one.inherited())"
    said = [
        subprocess.run(
            ["sh", "-c", f'{lines}; exec "$@"', "sh", sys.executable, "-c", code], stdout=subprocess.PIPE, check=True
        ).stdout
        for lines in ("true", "true", change)
    ]
    assert said[0] == said[1]
    if len(os.sched_getaffinity(0)) > 1 or not change.startswith("taskset"):
        assert said[0] != said[2]


def test_free_memory_is_that_of_the_machine(system: System) -> None:
    """Files that can be given up count as free."""
    assert free_memory(str(system.proc), str(system.cgroups)) == pytest.approx(0.6)


def test_a_cgroup_may_have_less_free_memory(system: System) -> None:
    """What it has read from files counts as free there, too."""
    group = "user.slice/user-7.slice"
    system.limit(group, memory_max="100000", memory_current="95000", memory_stat="anon 80000\ninactive_file 5000\n")
    assert free_memory(str(system.proc), str(system.cgroups)) == pytest.approx(0.1)


def test_free_memory_that_is_unknown_is_none(tmp_path: Path) -> None:
    """Then nothing is kept."""
    assert free_memory(str(tmp_path), str(tmp_path)) == 0


def test_variables_of_a_login_are_told_apart() -> None:
    """Each variable is in one of the parts."""
    given = {"PATH": "/bin", "SSH_CONNECTION": "1", "XDG_SESSION_ID": "4", "KRB5CCNAME": "FILE:/tmp/a", "LANG": "C"}
    assert split_variables(given) == (
        {"PATH": "/bin", "LANG": "C"},
        {"SSH_CONNECTION": "1", "XDG_SESSION_ID": "4", "KRB5CCNAME": "FILE:/tmp/a"},
    )
