"""The process that imports the application once and forks a process for each job."""
