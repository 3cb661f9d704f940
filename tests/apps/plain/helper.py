"""A sibling module of the test application."""


def double(value):
    """Twice the value."""
    return 2 * value
