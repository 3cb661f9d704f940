"""What is kept of runs: their journals."""
