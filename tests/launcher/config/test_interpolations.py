"""Interpolations that cannot resolve are found, and nothing is resolved by looking."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from launcher.config.interpolations import mentions, unresolved


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({"a": 1, "b": "${a}", "c": "${.a}", "d": {"e": "${..a}", "f": "${.g}", "g": "???"}}, []),
        ({"a": "${b.c}", "b": {"c": "${oc.env:X}"}}, []),
        ({"a": "${b.c.d}", "b": "${e}", "e": {"c": 1}}, []),
        ({"a": "${b.0.c}", "b": [{"c": 1}]}, []),
        ({"a": "\\${x}", "b": "\\${x:y}", "c": "${oc.env:HOME}/${a}", "d": "${hydra:job.num}"}, []),
        ({"a": "${m.x}", "m": "???"}, []),
        ({"a": "${b}"}, ["a: ${b}: the config has no b"]),
        ({"a": {"b": "${..c}"}}, ["a.b: ${..c}: the config has no ..c"]),
        ({"a": ["x", "y-${b.1}"], "b": [1]}, ["a[1]: y-${b.1}: the config has no b.1"]),
        (
            {"a": "${nope:1}"},
            ["a: ${nope:1}: there is no resolver 'nope'; register it where the application is imported"],
        ),
        ({"a": "${oc.env:${b}}"}, ["a: ${oc.env:${b}}: the config has no b"]),
        ({"a": "${n.x}", "n": None}, ["a: ${n.x}: the config has no n.x"]),
        ({"a": "${b.usr}", "b": {"user": 1}}, ["a: ${b.usr}: the config has no b.usr (did you mean 'b.user'?)"]),
        (
            {"a": "${modle.user}", "model": {"user": 1}},
            ["a: ${modle.user}: the config has no modle.user (did you mean 'model.user'?)"],
        ),
        ({"a": "${hydra:job.num}-${now:%H}"}, []),
    ],
)
def test_interpolations_that_cannot_resolve(config, problems):
    """They are found without resolving anything. Values that the host may set are not checked."""
    import hydra.core.utils

    hydra.core.utils.setup_globals()
    way_out = "; set it, or write \\${...} for plain text"
    assert [one.removesuffix(way_out) for one in unresolved(OmegaConf.create(config))] == problems


def test_nothing_is_resolved_by_looking():
    """A resolver's result that is cached here would be sent to hosts where it is wrong."""
    called = []
    OmegaConf.register_new_resolver("launcher_test_looking", lambda: called.append(1), replace=True)
    assert list(unresolved(OmegaConf.create({"a": "${launcher_test_looking:}"}))) == []
    assert not called
    OmegaConf.clear_resolver("launcher_test_looking")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"a": "${oc.env:X}"}, True),
        ({"a": [{"b": "x-${oc.env:X,1}"}]}, True),
        ({"a": "${nope:${oc.env:X}}"}, True),
        ({"a": {"b": "x"}, "c": None, "d": "???", "e": [1]}, False),
        ({"a": {"oc.env": 1}}, False),
    ],
)
def test_a_text_is_found_where_it_is_written(config, found):
    """In a value, at any depth. A key calls nothing."""
    assert mentions(OmegaConf.create(config), "oc.env") is found


def test_the_text_of_a_container_that_is_an_interpolation_is_found_too():
    """As that of a value."""
    assert mentions(OmegaConf.create({"a": {"b": 1}, "c": {"d": "${oc.env:X}"}, "e": "${oc.dict.keys:a}"}), "oc.dict")
    config = OmegaConf.create({"a": {"b": 1}})
    config.a = "${oc.env:X}"
    assert mentions(config, "oc.env")
