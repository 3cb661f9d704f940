"""The user's code: which application it is, which files travel, which task is run."""
