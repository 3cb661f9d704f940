"""A run on a Slurm cluster: what login node and allocations tell each other through files of a shared disk."""
