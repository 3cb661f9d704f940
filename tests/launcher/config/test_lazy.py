"""The config for run hooks: it is made when it is read, if nothing about it could be refused."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import launcher
from launcher.config import lazy
from launcher.config.lazy import LazyConfig, checked_config, config_with_node, made_now
from launcher.errors import ConfigError
from remote_agent.callbacks.base import Callback

NODE: dict[str, Any] = {"job": {"name": "app"}, "callbacks": {}}
PLAIN: dict[str, Any] = {"a": {"b": [1, None, "x", [0.5]]}, "c": True, "d": "???"}


@dataclasses.dataclass
class Structured:
    """A config."""

    x: int = 1


def _holding_itself() -> dict[str, Any]:
    config: dict[str, Any] = {}
    config["self"] = config
    return config


@pytest.mark.parametrize("config", [PLAIN, {}, None])
def test_plain_data_is_made_late_and_is_the_same(config):
    """The result is the same, to the last attribute."""
    late = checked_config(config, NODE)
    assert isinstance(late, LazyConfig)
    assert pickle.dumps(made_now(late)) == pickle.dumps(config_with_node(config, NODE))


@pytest.mark.parametrize(
    "config",
    [
        {"a": "${b}", "b": 1},
        {"a": [{"b": "\\${b}"}]},
        {1: 2},
        {"a": (1, 2)},
        {"a": Path("x")},
        {"a": Structured()},
        Structured(),
        OmegaConf.create(PLAIN),
    ],
    ids=repr,
)
def test_anything_else_is_made_at_once(config):
    """Only OmegaConf can decide whether it is valid."""
    assert isinstance(checked_config(config, NODE), DictConfig)


@pytest.mark.parametrize("config", [{"a": "${b}"}, {"a": "${nowhere:1}"}, [1], 3, {"a": {3.5j: 1}}, _holding_itself()])
def test_an_invalid_config_is_refused_at_once(config):
    """The refusal does not wait until a hook reads it."""
    with pytest.raises(ConfigError):
        checked_config(config, NODE)


def test_interpolations_in_the_hydra_node_count_too():
    """A folder may have any name, even one that looks like an interpolation."""
    with pytest.raises(ConfigError, match="nothing"):
        checked_config({}, {"run": {"dir": "/x/${nothing}"}})


def test_later_changes_by_the_caller_do_not_reach_the_run():
    """The run's config stays as it was given."""
    config: dict[str, Any] = {"a": [1]}
    late = checked_config(config, NODE)
    config["a"].append(2)
    assert made_now(late).a == [1]


def test_it_pickles_as_the_made_config():
    """This holds whether it was made or not, and includes hooks' changes, so that a resumed run finds a config."""
    late: Any = checked_config(PLAIN, NODE)
    unmade = pickle.loads(pickle.dumps(late))
    assert isinstance(unmade, DictConfig)
    assert unmade == config_with_node(PLAIN, NODE)
    late.made.c = False
    assert pickle.loads(pickle.dumps(late)).c is False


class Edits(Callback):
    """Edits the run's config at the start, and checks it at the end."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Edit it."""
        config.seen = ["start"]

    def on_run_end(self, config: Any, **kwargs: Any) -> None:
        """See it."""
        SEEN.append((type(config), config.seen, config.hydra.job.name))


SEEN: list[Any] = []


@pytest.mark.slow
def test_all_hooks_of_a_run_get_one_config(tmp_path):
    """It is made when the first hook reads it."""
    SEEN.clear()
    launcher.run(lambda config: 1, {"x": 1}, callbacks=[Edits()], folder=tmp_path / "run")
    assert SEEN.pop() == (DictConfig, ["start"], "lambda")


def test_omegaconf_is_imported_when_the_answer_comes():
    """The import also includes the check that configs may be made the quick way."""
    lazy.import_omegaconf()
    from remote_agent.config.nodes import _Proven

    assert _Proven.maker
