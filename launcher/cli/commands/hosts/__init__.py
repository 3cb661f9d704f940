"""The commands about hosts: connections to them, whether they can run jobs, what they have."""
