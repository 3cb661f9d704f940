"""What a host is asked without a run: by commands about hosts."""
