"""What a run needs, checked before anything is sent, and what hosts are told of it."""
