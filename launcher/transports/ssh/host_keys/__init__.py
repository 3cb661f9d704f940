"""How the key of a host is judged: by a fingerprint, by known_hosts, and by the KnownHostsCommand."""
