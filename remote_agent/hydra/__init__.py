"""Everything that touches Hydra on a host."""
