"""The bytes of a job: its config and its result as pickles, and the pickles that it gets."""
