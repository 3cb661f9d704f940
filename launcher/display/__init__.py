"""Shows a run to its user.

Rule: the display observes events and decides nothing. Its memory does not grow with finished jobs. Control characters from a host
never reach a terminal.
"""
