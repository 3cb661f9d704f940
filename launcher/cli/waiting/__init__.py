"""A process that waits for the next command of this terminal, with the launcher imported; the command is forked from it."""
