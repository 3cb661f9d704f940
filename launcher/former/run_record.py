"""Found as `launcher.run_record`, which pickles of earlier versions ask for."""

from launcher.pickled import read_unpicklable as _read_unpicklable

__all__ = ["_read_unpicklable"]
