"""The example app of `launcher demo`, as a package only so that it is installed with the rest: it runs as a copy."""
