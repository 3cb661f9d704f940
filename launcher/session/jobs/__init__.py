"""The jobs of a session: as futures, as they arrive, as JobReturns, and those that an earlier run has completed."""
