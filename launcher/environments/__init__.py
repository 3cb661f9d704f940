"""Packages for hosts: what the user named, resolved here, chosen for a host, and fetched."""
