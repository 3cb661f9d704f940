"""The way to a host over SSH."""
