"""`launcher demo`: the main promises, shown against a throwaway SSH server."""
