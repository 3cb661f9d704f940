"""What of the host each job gets and uses: GPUs, CPUs, shares of it, and the use that is seen."""
