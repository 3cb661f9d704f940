"""Hosts with what an environment needs: made once, and copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.remote_agent.agent.environments.sites import Site


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host's cache that nobody changes."""
    return Site(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def site(bare: Site, tmp_path: Path) -> Site:
    """A host's cache, of one test alone."""
    return bare.copied(tmp_path)
