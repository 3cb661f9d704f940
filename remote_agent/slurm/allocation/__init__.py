"""The agent in an allocation."""
