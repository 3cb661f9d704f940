"""Random numbers in forked processes: the same as if each job had imported the application itself.

Rule: a generator without a seed differs from job to job. A generator that the application seeded when it was imported starts every
job with that seed. Without this module, numpy's global generator would be the same in all jobs. Python's reseeds itself in a forked
process, so it would forget a seed that the application has set.
"""

import random
import sys
from typing import Any, Callable, Optional

__all__ = ["SeedWatch"]

#: The first word of numpy's state if the system seeded it. If the user did, it is the user's seed.
_BY_SYSTEM = 0x80000000


class SeedWatch:
    """Watches the import of the application. `in_job` then sets the generators of a forked process."""

    def __init__(self) -> None:
        self._python_state: Any = None
        self._was_seeded = False
        self._original: Callable[..., None] = random.seed

    def __enter__(self) -> "SeedWatch":  # noqa: PYI034 - typing.Self is newer than Python 3.8
        original = self._original

        def seed(*args: Any, **kwargs: Any) -> None:
            self._was_seeded = bool(args or kwargs)
            original(*args, **kwargs)

        random.seed = seed
        return self

    def __exit__(self, *_: object) -> None:
        random.seed = self._original
        if self._was_seeded:
            self._python_state = random.getstate()

    def in_job(self) -> None:
        """Set the generators in the forked process, before any user code runs."""
        if self._python_state is not None:
            random.setstate(self._python_state)
        numpy_random: Optional[Any] = sys.modules.get("numpy.random")
        if numpy_random is not None:
            state = numpy_random.get_state()
            if state[0] == "MT19937" and int(state[1][0]) == _BY_SYSTEM:
                numpy_random.seed()
