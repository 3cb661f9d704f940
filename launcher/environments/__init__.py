"""Packages for hosts: what the user named is resolved here, chosen for a host, and fetched."""
