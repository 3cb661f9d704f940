"""What machines tell each other through files of a shared disk, whatever it is about."""
