"""What the agent and the jobs ask of the operating system."""
