"""Config trees that are made and compared without omegaconf's slow checks."""

import pathlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import ReadonlyConfigError

from remote_agent.config import nodes
from remote_agent.config.nodes import make_config, plain_of, put_text, snapshot
from tests.examples import examples

_scalars = st.one_of(
    st.text(max_size=5),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.sampled_from(["???", "${a}", "a.b"]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)


def _tree(node):
    """Everything of which a node consists."""
    own = dict(node.__dict__)
    parent = own.pop("_parent")
    metadata = dict(own.pop("_metadata").__dict__)
    own.pop("_flags_cache")
    content = own.pop("_content", None)
    if isinstance(content, dict):
        content = {key: _tree(item) for key, item in content.items()}
    elif isinstance(content, list):
        content = [_tree(item) for item in content]
    return type(node), metadata, own, content, type(parent)


@pytest.mark.slow
@settings(max_examples=examples(80), deadline=None)
@given(st.dictionaries(st.text(max_size=5), _values, max_size=4))
def test_a_made_config_equals_omegaconfs(value):
    """The same tree, node by node and attribute by attribute."""
    try:
        expected = OmegaConf.create(value, flags={"allow_objects": True})
    except Exception:
        return
    made = make_config(value)
    assert _tree(made) == _tree(expected)
    assert pickle.loads(pickle.dumps(made)) == pickle.loads(pickle.dumps(expected))


def test_the_maker_passes_its_check():
    """The fast way knows the omegaconf of the tests."""
    make_config({"a": 1})
    assert isinstance(nodes._Proven.get(), nodes._Maker)


def test_without_a_passed_check_omegaconf_makes_the_config(monkeypatch):
    """For example with an omegaconf that is built in another way."""
    monkeypatch.setattr(nodes._Proven, "maker", False)
    assert make_config({"a": [1]}) == {"a": [1]}


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(a=2),
        lambda c: c.update(a=1.0),
        lambda c: c.update(a=True),
        lambda c: c.inner.pop("b"),
        lambda c: c.items_.append(3),
        lambda c: OmegaConf.set_readonly(c.inner, True),
        lambda c: c.update(new=None),
        lambda c: c.update(p=pathlib.Path("/b")),
        lambda c: c.inner.update(b="other"),
    ],
)
def test_an_edit_is_noticed(edit):
    """Of values, types, keys, lists, flags."""
    config = OmegaConf.create({"a": 1, "inner": {"b": "x"}, "items_": [1, 2], "p": pathlib.Path("/a"), "now": "${a}"})
    before = snapshot(config)
    assert snapshot(config) == before
    config.now, config.inner.b, list(config.items())  # reading is no edit
    assert snapshot(config) == before
    with open_dict(config):
        edit(config)
    assert snapshot(config) != before


def test_an_edit_of_an_object_is_noticed():
    """Objects in a config are compared by their pickles."""
    config = OmegaConf.create({"a": {1, 2}}, flags={"allow_objects": True})
    before = snapshot(config)
    assert before is not None
    config.a.add(3)
    assert snapshot(config) != before


def test_a_config_that_cannot_be_compared_counts_as_edited():
    """A config with a function in it cannot be compared."""
    assert snapshot(OmegaConf.create({"a": lambda: 1}, flags={"allow_objects": True})) is None
    assert plain_of(OmegaConf.create({"a": 1})) == {"a": 1}


def test_a_clone_is_a_deep_copy():
    """The same tree, with structured configs, flags, caches and objects; optionally without one key."""
    import copy
    from dataclasses import dataclass, field

    @dataclass
    class Inner:
        a: int = 1
        by: dict[str, int] = field(default_factory=dict)

    config = OmegaConf.create(
        {"inner": Inner(), "list": [1, {"x": "${inner.a}"}], "none": None, "object": {1, 2}, "hydra": {"y": 1}},
        flags={"allow_objects": True},
    )
    OmegaConf.set_readonly(config.inner, True)
    made = nodes.clone(config)
    assert _tree(made) == _tree(copy.deepcopy(config))
    assert made.list[1].x == 1
    made.object.add(3)
    made.list.append(2)
    assert config.object == {1, 2}
    assert len(config.list) == 2
    assert OmegaConf.get_type(made.inner) is Inner
    without = nodes.clone(config, without="hydra")
    assert "hydra" not in without
    assert config.hydra.y == 1
    assert nodes.clone(config.hydra)._get_parent() is None


def test_an_opened_config_is_what_omegaconf_would_make():
    """From plain, interpolated and structured configs, even read-only ones. It accepts edits."""
    from dataclasses import dataclass

    @dataclass
    class Typed:
        a: int = 1

    for config in (OmegaConf.create({"a": 1, "b": "${a}"}), OmegaConf.structured(Typed)):
        OmegaConf.set_readonly(config, True)
        expected = OmegaConf.create(config, flags={"allow_objects": True})
        OmegaConf.set_struct(expected, False)
        OmegaConf.set_readonly(expected, False)
        made = nodes.opened(config, OmegaConf.create({"hydra": {"x": 1}}))
        made.hydra.x = 2
        assert made.__dict__["_content"].pop("hydra") == {"x": 2}
        assert _tree(made) == _tree(expected)
        made.a = 5
        assert made.a == 5
    assert nodes.opened(None) == {}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"a": {"b": {"c": "old"}}}, id="a leaf"),
        pytest.param({"a": {"b": {"c": None}}}, id="a leaf that is None"),
        pytest.param({"a": {"b": {}}}, id="nothing yet"),
        pytest.param({"a": {"b": {"c": {"d": 1}}}}, id="a mapping"),
    ],
)
@pytest.mark.parametrize("text", ["new", "", "${x}"])
def test_a_text_is_put_as_omegaconf_puts_it(config, text):
    """Whether or not something was there."""
    ours, theirs = make_config(config), OmegaConf.create(config, flags={"allow_objects": True})
    put_text(ours, "a.b.c", text)
    OmegaConf.update(theirs, "a.b.c", text.replace("${", "\\${"))
    assert _tree(ours) == _tree(theirs)
    assert ours.a.b.c == text


def test_no_text_is_put_where_a_flag_forbids_it():
    """The nearest flag counts, as in omegaconf."""
    config = make_config({"a": {"b": "old"}})
    OmegaConf.set_readonly(config, True)
    with pytest.raises(ReadonlyConfigError):
        put_text(config, "a.b", "new")
    OmegaConf.set_readonly(config.a, False)
    put_text(config, "a.b", "new")
    assert config.a.b == "new"
