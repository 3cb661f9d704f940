"""Which files of a project are sent to hosts, as a manifest of content hashes."""
