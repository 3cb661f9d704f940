"""Benchmarks: `python -m benchmarks` prints ratios against the peers. docs/benchmarks.md has the results of a run."""
