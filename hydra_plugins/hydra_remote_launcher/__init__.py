"""The Hydra plugin `hydra/launcher=remote`: `remote_launcher` is what Hydra finds, `_conf` has its options, `_sweep` does the work.

Rule: in every Hydra app on this machine, Hydra executes each module here whose name does not begin with an underscore. Such
modules import nothing heavy.
"""
