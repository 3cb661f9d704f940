"""Fork servers: processes that have imported the agent, and from which the agents of later runs are forked."""
