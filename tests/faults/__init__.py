"""What still holds when something breaks."""
