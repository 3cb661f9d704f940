"""Benchmarks: `python -m benchmarks` prints ratios against the peers; docs/benchmarks.md holds a run of them."""
