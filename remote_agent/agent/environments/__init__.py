"""Environments of packages: finding Pythons, keeping environments, building them."""
