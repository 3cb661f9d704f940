"""The code of a run on its host: contents by hash, what is made of them, and what jobs write beside it."""
