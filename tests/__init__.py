"""The tests; what they share is in parts.py and hosts/."""
