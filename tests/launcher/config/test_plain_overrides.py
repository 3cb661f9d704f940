"""Overrides that need no parser are read as Hydra's parser reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from launcher.config.plain import PlainComposition, _parse
from launcher.config.plain_overrides import read_plainly

ROOT = Path(__file__).parents[3]
APP: Any = SimpleNamespace(name="app")


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        ([], {}),
        (["x=1", "+y=-2.50", "++a.b=word"], {"x": 1, "y": -2.5, "a.b": "word"}),
        (["a=TRUE", "b=false", "c=Null", "d=_x1"], {"a": True, "b": False, "c": None, "d": "_x1"}),
    ],
)
def test_plain_values_are_read(overrides: list[str], values: dict[str, Any]) -> None:
    """Numbers, words, true, false and null."""
    read = read_plainly(overrides)
    assert read == values
    assert [type(one) for one in read.values()] == [type(one) for one in values.values()]


@pytest.mark.parametrize(
    "overrides",
    [
        ["x=1,2"], ["x=range(1,5)"], ["x=${y}"], ["x=[1]"], ["x={a: 1}"], ["x='a'"], ["x="], ["~x"], ["~x=1"], ["x"], ["x=a b"],
        ["x=1e5"], ["x=nan"], ["x=Inf"], ["x=1_000"], ["x=01"], ["x=+1"], ["x=1."], ["x=.5"], ["x=a/b"], ["a@b=c"], ["a/b=c"],
        ["x= 1"], ["x =1"], ["x=1\n"], ["x=1", "x=2"], ["a=1", "a.b=2"], ["a.b=2", "+a=1"], ["hydra.callbacks.a._target_=b"],
        ["hydra=x"], ["1x=1"], ["=1"],
    ],
)  # fmt: skip
def test_everything_else_is_left_to_hydra(overrides: list[str]) -> None:
    """Sweeps, interpolations, quotes, lists, groups, other numbers, and keys that touch each other."""
    assert read_plainly(overrides) is None


_KEYS = st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,3}", fullmatch=True), min_size=1, max_size=3).map(".".join)
_VALUES = st.one_of(
    st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{0,4})?", fullmatch=True),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True),
    st.sampled_from(["true", "FALSE", "null", "nan", "inf", "None", "yes", "off", "e5", "0x1", "1e3"]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "+", "++"]), _KEYS, _VALUES), max_size=4))
def test_they_are_what_hydra_reads(parts: list[tuple[str, str, str]]) -> None:
    """Whatever is read without Hydra makes the config that Hydra's parser makes, in the same order."""
    overrides = [f"{sign}{key}={value}" for sign, key, value in parts]
    if read_plainly(overrides) is None:
        return
    made = PlainComposition(APP, overrides, multirun=True)
    parsed = _parse(overrides, is_multirun=True)
    assert OmegaConf.to_yaml(made.config) == OmegaConf.to_yaml(PlainComposition._build(parsed))
    told = BasicSweeper.split_arguments(parsed, None)
    assert list(made.job_overrides()) == [tuple(job) for (job,) in told]


def test_a_run_with_plain_overrides_imports_no_hydra() -> None:
    """Neither for its own config nor for those of its jobs."""
    program = (
        "import sys\nfrom types import SimpleNamespace\nfrom launcher.config.plain import PlainComposition\n"
        "made = PlainComposition(SimpleNamespace(name='app'), ['x=1', 'a.b=word'], multirun=True)\n"
        "made.check()\n"
        "jobs = list(made.job_overrides())\n"
        "assert (made.count, jobs) == (1, [('x=1', 'a.b=word')]), jobs\n"
        "assert made.job_config(0, jobs[0]) == {'x': 1, 'a': {'b': 'word'}}\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'hydra'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
