"""The user's code: which application it is, which files are sent, which task is run."""
