"""How the agent comes to a host: the bundle, and what starts it there."""
