"""Slurm behind a seam, and what its options say."""
