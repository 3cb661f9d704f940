"""Running a job again, and comparing how it ends."""
