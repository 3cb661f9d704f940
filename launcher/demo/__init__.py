"""`launcher demo`: shows the main promises with a temporary SSH server."""
