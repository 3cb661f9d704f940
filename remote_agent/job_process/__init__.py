"""The process of one job, from its fork to its end."""
