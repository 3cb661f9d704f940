"""The limit of open files: raised where hosts need it, and nobody else's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.util.open_files import as_given, make_room

_PROGRAM = """
import json, resource, sys
from launcher.util.open_files import make_room
from launcher.transports.local import LocalTransport
from launcher.transports.ssh.sockets import open_proxy
soft, hard, hosts = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
said = [make_room(hosts), make_room(hosts)]
now = resource.getrlimit(resource.RLIMIT_NOFILE)
channel = LocalTransport().open("ulimit -S -n; ulimit -H -n")
job = b""
while data := channel.recv(100):
    job += data
proxy = open_proxy("h", "sh -c 'ulimit -S -n'")
print(json.dumps({"said": said, "now": now, "job": job.decode().split(), "proxy": proxy.recv(100).decode().strip()}))
"""


def limited(soft: int, hard: int, hosts: int) -> dict[str, Any]:
    """What comes of it in a process of its own, whose limits cannot be put back."""
    command = [sys.executable, "-c", _PROGRAM, str(soft), str(hard), str(hosts)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=root, timeout=120)
    return dict(json.loads(done.stdout))


def test_it_is_raised_where_hosts_need_it() -> None:
    """To the hard limit; what is started has the limit that the user had."""
    seen = limited(1024, 8000, 300)
    assert seen == {"said": ["", ""], "now": [8000, 8000], "job": ["1024", "8000"], "proxy": "1024"}


def test_it_stays_where_they_do_not() -> None:
    """A few hosts change nothing of a process that is the user's."""
    seen = limited(1024, 8000, 10)
    assert seen == {"said": ["", ""], "now": [1024, 8000], "job": ["1024", "8000"], "proxy": "1024"}


def test_a_hard_limit_that_is_too_low_is_told() -> None:
    """With how many hosts it is enough for."""
    seen = limited(300, 2000, 300)
    assert seen["now"] == [2000, 2000]
    for said in seen["said"]:
        assert "may have 2000 files open (ulimit -Hn), which is enough for about 10" in said
        assert "300 hosts may need" in said


def test_nothing_is_put_before_a_command_without_need() -> None:
    """Commands stay as they are read in messages and logs."""
    assert make_room(1) == ""
    assert as_given("true") == "true"
