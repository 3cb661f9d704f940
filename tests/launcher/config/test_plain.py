"""The config of a plain function is built of its overrides, by Hydra's grammar."""

from __future__ import annotations

import pytest

from launcher.config.compose import compose
from launcher.errors import ConfigError


def test_overrides_build_the_config_of_a_plain_function(plain):
    """`a=1`, `+a.b=2` and `++c=[1]` set keys, and `~` removes one. Parents of nested keys are made."""
    with compose(
        plain,
        ["a=1", "+m.lr=0.5", "++m.sizes=[1,2]", "s='x, y'", "t=${a}", "n=null", "x.y.z=true", "a=2", "gone=1", "~gone"],
    ) as composition:
        assert not composition.is_hydra
        assert composition.config == {
            "a": 2,
            "m": {"lr": 0.5, "sizes": [1, 2]},
            "s": "x, y",
            "t": 2,
            "n": None,
            "x": {"y": {"z": True}},
        }
        composition.check()
    with compose(plain) as composition:
        assert composition.config == {}
        assert list(composition.job_overrides()) == [()]
        assert composition.count == 1


def test_a_sweep_of_a_plain_function(plain):
    """It has Hydra's grammar. The run's own config has the overrides that do not sweep."""
    with compose(plain, ["lr=0.1,0.2", "name=x", "seed=range(0,2)"], multirun=True) as composition:
        assert composition.config == {"name": "x"}
        jobs = list(composition.job_overrides())
        assert jobs[1] == ("lr=0.1", "name=x", "seed=1")
        assert composition.job_config(1, jobs[1]) == {"lr": 0.1, "name": "x", "seed": 1}
        composition.check()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["lr=1,2"], "Ambiguous value"),
        (["a=1", "+a=2"], "set already"),
        (["~a"], "does not exist"),
        (["db@x=1"], "config group"),
        (["hydra.sweep.dir=/x"], "has no meaning for a plain function"),
        (["hydra/launcher=basic"], "has no meaning for a plain function"),
        (["=1"], "=1"),
        (["a=${nope:1}"], "no resolver 'nope'"),
    ],
)
def test_overrides_without_a_meaning_for_a_plain_function_are_refused(plain, overrides, says):
    """It is refused with Hydra's message, or with one that says what to use instead."""
    with pytest.raises(ConfigError) as caught, compose(plain, overrides) as composition:
        composition.check()
    assert says in str(caught.value)
