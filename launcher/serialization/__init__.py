"""Values in transit: pickles to a host, and plain data back."""
