"""Values on their way: pickles to a host, and plain data back."""
