"""A run on a terminal: the live part below the lines, its keys, and what they do; and `launcher top`."""
