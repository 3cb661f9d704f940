"""Starts zygotes, and talks to them."""
