"""The process on the login node: it asks for allocations, and passes on what they write."""
