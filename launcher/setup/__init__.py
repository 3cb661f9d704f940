"""What a run needs, checked before anything is sent."""
