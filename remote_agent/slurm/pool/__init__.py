"""The attempts of a run on its shared disk: who has taken which, and what dead allocations owe."""
