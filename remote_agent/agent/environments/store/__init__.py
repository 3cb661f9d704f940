"""The environments that are kept on this host: where they are, who uses them, what is in them, which ones go."""
