"""How many examples a property test tries: its own number in `.ci/run`, less in the quick tests, and many where new cases are looked for.

`quick` and `ci` try the same examples each time, so that a run fails for what was changed and not by chance. Chance is asked for by name:
`pytest --hypothesis-profile=search` tries a thousand random examples where `ci` tries a hundred, and prints how to repeat what fails. What it
finds becomes an `@example` of its test.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

#: No example is late, and none is made too slowly: that would depend on what else the machine does.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("quick", _PATIENT, max_examples=30, derandomize=True, database=None)
settings.register_profile("ci", _PATIENT, max_examples=100, derandomize=True, database=None)
settings.register_profile("search", _PATIENT, max_examples=1000, derandomize=False, print_blob=True)


def load_profile(config: pytest.Config) -> None:
    """The profile that was asked for; or else what this run is: one that may miss nothing, or a quick one."""
    default = "ci" if os.environ.get("LAUNCHER_TESTS_NEED_ALL") else "quick"
    settings.load_profile(config.getoption("--hypothesis-profile") or default)


def examples(number: int) -> int:
    """As many as `number` where the profile has a hundred, and in proportion elsewhere."""
    return max(1, number * settings.default.max_examples // 100)
