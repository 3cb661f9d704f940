"""Runs a job again, and compares how it ends."""
