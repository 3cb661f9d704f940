"""A process that does job after job (`isolation: reuse`), and what must not go from one job to the next."""
