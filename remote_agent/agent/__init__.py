"""The agent's own process: it holds the spool, the link and the slots, and never runs a user's code."""
