"""JobReturns, and output files that hosts send back."""
