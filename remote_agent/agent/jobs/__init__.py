"""The jobs of the run on this host: their queue, those that run, what they report, and what follows their end."""
