"""What waits on a machine for the next run or command: its records, who may have it, and how it forks."""
