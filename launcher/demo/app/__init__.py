"""The example app of `launcher demo`. It is a package only so that it gets installed. It runs as a copy."""
