"""What hosts send back: output folders, and what may be written there."""
