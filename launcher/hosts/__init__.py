"""Hosts as a user names them, and how much they may say. Nothing here asks a host."""
