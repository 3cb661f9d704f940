"""A host's cache with what an environment needs, as the disk that the nodes of a cluster share."""

from tests.remote_agent.agent.environments.conftest import bare, site

__all__ = ["bare", "site"]
