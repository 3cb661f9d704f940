"""What a request for allocations says."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_agent.slurm.batch.batch import Request
from remote_agent.slurm.pool.heirs import Owed, owe
from remote_agent.slurm.submitter.submitter_log import Asked
from tests.remote_agent.slurm.submitter.login_node import LoginNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoginNode]:
    """A login node."""
    made = LoginNode(tmp_path)
    yield made
    made.close()


def role(request: Request) -> dict[str, str]:
    """What the agent is told, by option."""
    words = shlex.split(request.script.splitlines()[-1])
    words = words[words.index("allocation") + 1 :]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_agent_is_told_what_it_is_for(node: LoginNode) -> None:
    """How many jobs, of which class, and what was there when it was asked for, so that it knows a disk that is late."""
    node.put(0, 1)
    node.log.acked.add("7.1")
    owe(node.files, "5.1.1", Owed("9.0", "node_failed", "why"))
    node.log.requests["r"] = Asked(3, "default", 2, 1)
    requests = node.asking.requests
    requests.options = {
        "slots": 2,
        "cpus": 4,
        "time": "2:00:00",
        "workdir": "/scratch/it's mine",
        "options": ["--x=a b"],
    }
    requests.requeue = {"preempted": 1}
    request = requests.allocations("r", is_many=True)
    assert (request.tasks, request.at_once, request.is_optional) == (3, 1, True)
    assert request.needs == {"cpus": "8", "time": "2:00:00"}
    assert request.options == ("--x=a b",)
    told = role(request)
    assert (told["--most"], told["--slots"], told["--class"], told["--request"]) == ("0", "2", "default", "r")
    assert (told["--expects"], told["--owed"]) == ("3", "1")
    assert told["--workdir"] == "/scratch/it's mine"
    assert json.loads(told["--requeue"]) == {"preempted": 1}
    assert json.loads(told["--left"]) == [60.0, 30.0]
    assert "--part" not in told
    assert "--spare" not in told
    assert "--environments" not in told
    requests.options["environments"] = "/scratch/me"
    assert (
        role(requests.allocations("r", is_many=True))["--environments"]
        == f"/scratch/me/hydra-remote-launcher-{os.geteuid()}"
    )


def test_a_class_says_what_each_job_has(node: LoginNode) -> None:
    """Beside what the whole allocation has."""
    node.log.requests["r"] = Asked(1, "g1-c4-m0", 2, None)
    request = node.asking.requests.allocations("r", is_many=False)
    assert request.needs == {"cpus": "8", "gpus": "2"}
    assert (json.loads(role(request)["--part"])["cpus"], role(request)["--most"]) == (4, "1")


def test_an_epilogue_takes_no_job(node: LoginNode) -> None:
    """It waits for the end of all others, and asks for no more than the partition and the account."""
    node.log.requests["r"] = Asked(1, "default", 1, None)
    node.asking.requests.options = {"partition": "p", "gpus": 4, "account": "a"}
    request = node.asking.requests.epilogue("end", ["100", "102"])
    assert (request.tasks, request.after, request.needs) == (1, ("100", "102"), {"partition": "p", "account": "a"})
    told = role(request)
    assert (told["--most"], told["--request"], json.loads(told["--of"])) == ("0", "epilogue", ["r"])
