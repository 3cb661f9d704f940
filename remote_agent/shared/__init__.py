"""What both sides and all processes of a run say alike.

`protocol`: numbers and words. Everything here is in the bundle, and of the standard library alone.
"""
