"""What jobs print, shown while they run."""
