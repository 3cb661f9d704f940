"""What a run needs, checked before anything is sent, and what hosts are told about it."""
