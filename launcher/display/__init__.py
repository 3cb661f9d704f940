"""How a run is shown to its user.

Rule: the display watches events and decides nothing. Its memory does not grow with finished jobs. Control characters in text from a
host never reach a terminal.
"""
