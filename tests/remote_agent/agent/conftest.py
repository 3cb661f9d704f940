"""Hosts with a real agent, for all tests of the agent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.remote_agent.agents import AgentHost

_RUNS = itertools.count()


@pytest.fixture
def new_agent(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., AgentHost]]:
    """Makes hosts, each with its own run."""
    made: list[AgentHost] = []

    def make(**more) -> AgentHost:
        made.append(AgentHost(tmp_path / f"a{len(made)}", bundle, run=f"t{os.getpid()}-{next(_RUNS)}", **more))
        return made[-1]

    yield make
    for host in made:
        host.stop()


@pytest.fixture(params=["fork", pytest.param("reuse", marks=pytest.mark.slow)])
def host(request: pytest.FixtureRequest, new_agent) -> AgentHost:
    """A host with one callback, where each job has a process, or shares one with other jobs."""
    return new_agent(callbacks={"c": ()}, isolation=request.param)
