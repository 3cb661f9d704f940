"""Composition: the config of a run and of each job."""
