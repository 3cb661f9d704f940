"""The way to a host through the `ssh` program."""
