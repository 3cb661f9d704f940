"""Configs as YAML: the same text as OmegaConf's own, for any config."""

import enum
import pathlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from remote_agent.config.nodes import plain_of
from remote_agent.config.yaml import config_yaml, plain_yaml
from remote_agent.hydra.compat import minimal_hydra_node
from tests.examples import examples

_words = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab01 :#-'\"{}[]$,.?&*!|>%@`~=+_\\/\n\t", max_size=14),
    st.sampled_from(
        [
            "yes",
            "No",
            "null",
            "~",
            "1e3",
            "1_000",
            "0x1f",
            "12:30:45",
            "2020-01-01",
            "nan",
            ".inf",
            "a: b",
            "a #b",
            "- a",
            "=",
            "<<",
            "...",
            "---",
            "${now:%Y}",
            "${a.b}",
            "???",
            "x" * 200,
            "word " * 30,
            "é",
            "\ud7ff",
            "a,b",
            "+x=1",
            "~x",
        ]
    ),
)
_scalars = st.one_of(_words, st.integers(), st.floats(), st.booleans(), st.none())
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_words.filter(bool), inner, max_size=4)),
    max_leaves=20,
)


def _is_config(value):
    try:
        return OmegaConf.create(value)
    except Exception:
        return None


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(st.one_of(st.dictionaries(_words.filter(bool), _values, max_size=5), st.lists(_values, max_size=5)))
def test_the_text_is_omegaconfs(value):
    """To the letter, whatever the config is."""
    config = _is_config(value)
    if config is not None:
        try:
            expected = OmegaConf.to_yaml(config)
        except Exception:
            return
        assert config_yaml(config) == expected


class Color(enum.Enum):
    RED = 1


@dataclass
class Inner:
    color: Color = Color.RED
    lr: float = 0.1
    path: pathlib.Path = pathlib.Path("/a b")
    names: list[str] = field(default_factory=lambda: ["a", "yes"])
    by: dict[Color, int] = field(default_factory=lambda: {Color.RED: 1})
    missing: str = "???"
    link: float = "${lr}"
    none: int | None = None
    data: bytes = b"\x00"


@given(
    st.one_of(
        st.from_regex(r"[0-9]{1,12}", fullmatch=True),
        st.from_regex(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}[#_][0-9]{1,4}", fullmatch=True),
    ),
    st.integers(0, 3),
)
def test_numbers_and_ids_of_jobs_as_text_are_written_as_omegaconf_does(text, depth):
    """As values and as keys, at any depth."""
    value = {text: text, "list": [text]}
    for _ in range(depth):
        value = {"above": value}
    config = OmegaConf.create(value)
    assert config_yaml(config) == OmegaConf.to_yaml(config)


def test_structured_configs_are_written_as_omegaconf_does():
    """Enums, enum keys, paths, bytes, missing values, interpolations."""
    config = OmegaConf.create({"inner": OmegaConf.structured(Inner), "list": [Inner()]})
    assert config_yaml(config) == OmegaConf.to_yaml(config)
    assert plain_of(config) == OmegaConf.to_container(config, enum_to_str=True)


def test_the_minimal_node_takes_the_cheap_way():
    """A plain job's hydra.yaml is certain, so no job pays for PyYAML."""
    node = {
        "hydra": minimal_hydra_node(
            num=3, job_id="r_3", cwd="/x/y", task_overrides=["x=1", "+y=a"], sweep_dir="m/2020-01-01"
        )
    }
    assert plain_yaml(node) == OmegaConf.to_yaml(OmegaConf.create(node))


def test_a_config_that_yaml_cannot_hold_gets_a_comment():
    """An object in a config does not stop a job."""
    config = OmegaConf.create({"x": lambda: 1}, flags={"allow_objects": True})
    assert config_yaml(config).startswith(("# YAML cannot represent", "x:"))
    assert config_yaml(object()).startswith("# a object")


@pytest.mark.parametrize(
    "value", [{}, [], {"a": {}}, {"a": []}, {"a": [[], {}, [1, [2]], {"b": [1], "c": {"d": 2}}]}, [{"a": [{"b": 1}]}]]
)
def test_nested_containers_are_written_as_omegaconf_does(value):
    """Also empty ones."""
    config = OmegaConf.create(value)
    assert plain_yaml(plain_of(config)) == OmegaConf.to_yaml(config)
