"""What a job is sent with: its payload, what it needs of its host, and the pickler that all jobs of a run share."""
