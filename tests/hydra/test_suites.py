"""Hydra's own published suites for launchers, over every transport.

Rule: no test in them is left out or changed. For a host without a shared disk, the suite of whole applications does not
apply, because its applications write to a path of this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

pytestmark = pytest.mark.hydra_suite
_BATCHED = ["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2"]


@pytest.fixture
def launcher_name() -> str:
    """The plugin's name."""
    return "remote"


# -- over the local transport ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [[]])
class TestLauncherLocal(LauncherTestSuite):
    """Hydra's suite for launchers, without a host."""


# A copy: the suite appends to what it is given.
@pytest.mark.parametrize("overrides", [list(_BATCHED)])
class TestBatchedLocal(BatchedSweeperTestSuite):
    """Hydra's suite for sweepers of several batches, without a host."""


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=remote"])])
class TestIntegrationLocal(IntegrationTestSuite):
    """Hydra's suite of whole applications, without a host."""


# -- over SSH, on a host that shares the file system -----------------------------------------------------------------


@pytest.fixture
def shared(demo_hosts: Path) -> list[str]:
    """Overrides that send jobs to the demo server."""
    return [
        f"hydra.launcher.hosts_file={demo_hosts}",
        "hydra.launcher.code=shared",
        f"hydra.launcher.python={sys.executable}",
    ]


class TestLauncherShared(LauncherTestSuite):
    """Hydra's suite for launchers, over SSH with the code shared."""

    @pytest.fixture
    def overrides(self, shared: list[str]) -> list[str]:
        return shared


class TestBatchedShared(BatchedSweeperTestSuite):
    """Hydra's suite for sweepers of several batches, over SSH with the code shared."""

    @pytest.fixture
    def overrides(self, shared: list[str]) -> list[str]:
        return [*_BATCHED, *shared]


@pytest.mark.parametrize("task_launcher_cfg", [{}])
class TestIntegrationShared(IntegrationTestSuite):
    """Hydra's suite of whole applications, over SSH with the code shared."""

    @pytest.fixture
    def extra_flags(self, shared: list[str]) -> list[str]:
        return ["-m", "hydra/launcher=remote", *shared]


# -- over SSH, on a host that shares no disk -------------------------------------------------------------------------


@pytest.fixture
def apart(equipped_hosts: Path) -> list[str]:
    """Overrides that send jobs to a host without a shared disk.

    It has Hydra, because the suites' own task is a part of Hydra.
    """
    return [f"hydra.launcher.hosts_file={equipped_hosts}"]


@pytest.mark.openssh
class TestLauncherApart(LauncherTestSuite):
    """Hydra's suite for launchers, on a host that shares no disk."""

    @pytest.fixture
    def overrides(self, apart: list[str]) -> list[str]:
        return apart


@pytest.mark.openssh
class TestBatchedApart(BatchedSweeperTestSuite):
    """Hydra's suite for sweepers of several batches, on a host that shares no disk."""

    @pytest.fixture
    def overrides(self, apart: list[str]) -> list[str]:
        return [*_BATCHED, *apart]
