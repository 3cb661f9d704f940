"""Ways to a host: `base` has the interface, `ssh` uses fabric, `local` starts a subprocess, `factory` chooses between
them.
"""
