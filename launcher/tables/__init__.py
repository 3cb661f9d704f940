"""Rows of runs: what was set, and what came back as plain data; sorting, files for other programs, two runs side by side."""
