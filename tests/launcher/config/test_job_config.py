"""What a job's config and its overrides are told to hosts and files as."""

from __future__ import annotations

import pytest

from launcher.config.job_config import without_value


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("hydra.launcher.env.A=hush", "hydra.launcher.env.A='***'"),
        (r"+hydra.launcher.env.A='it\'s hush'", "+hydra.launcher.env.A='***'"),
        ("hydra.launcher.env={A: hush}", "hydra.launcher.env={}"),
        ("hydra.launcher.hosts=[{name: a, env: {A: hush}}]", "hydra.launcher.hosts='***'"),
        ("++hydra.launcher={env: {A: hush}}", "++hydra.launcher='***'"),
        ("hydra.launcher.hosts=[a]", "hydra.launcher.hosts=[a]"),
        ("env=prod", "env=prod"),
    ],
)
def test_values_of_variables_are_taken_out_of_overrides(override, shown):
    """This holds for any way to write them. Other overrides are unchanged."""
    assert without_value(override) == shown
