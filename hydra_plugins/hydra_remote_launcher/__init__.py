"""The Hydra plugin `hydra/launcher=remote`: `remote_launcher` is what Hydra finds, `_conf` its options, `_sweep` the work.

Rule: Hydra executes every module here whose name has no underscore in front, in every Hydra app on this machine: those
import nothing heavy.
"""
