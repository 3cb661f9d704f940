"""Many hosts with one controller: some are dead, some have links that drop, and there are fewer open files than they
need.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import need_programs, need_root

pytestmark = [pytest.mark.openssh, pytest.mark.faults, pytest.mark.slow]

_ROOT = Path(__file__).parent.parent.parent


def test_many_hosts_of_which_some_are_dead() -> None:
    """Each living host takes jobs, each dead one is reported, and every job completes, with a low limit of open files."""
    need_root()
    need_programs("sshd", "ssh-keygen", "unshare", "ip", "iptables")
    command = [sys.executable, "-m", "benchmarks.many", "--hosts", "24", "--dead", "4", "--flapping", "2"]
    done = subprocess.run(
        [*command, "--open-files", "30"], capture_output=True, text=True, cwd=_ROOT, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["failed"] == []
    assert seen["completed"] == 48
    assert (seen["ready"], seen["unusable"], seen["reasons"]) == (20, 4, [])
    assert seen["cut"] == 2
    assert seen["descriptors"] > 30
