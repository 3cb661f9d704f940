"""Decisions: which job goes where and when, and what becomes of it. One thread makes them all."""
