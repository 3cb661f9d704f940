"""Hydra's process-wide state: what is captured on the controller, and what a host takes over of it."""

from __future__ import annotations

import pickle

import cloudpickle
import hydra.core.utils
from hydra import compose, initialize_config_dir, version
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from remote_agent import hydra_state


def test_capture_holds_what_was_registered_by_the_app(singletons):
    """Not the resolvers of omegaconf and Hydra; a resolver that cannot be pickled says why."""
    hydra.core.utils.setup_globals()
    version.setbase("1.2")
    hydra.core.utils.JobRuntime.instance().set("name", "the_name")

    def cached(x):
        return x

    OmegaConf.register_new_resolver("custom", cached, use_cache=True, replace=True)
    state = hydra_state.capture(cloudpickle.dumps)
    assert state["version_base"] == "1.2"
    assert state["job_name"] == "the_name"
    assert [(entry["name"], entry["use_cache"]) for entry in state["resolvers"]] == [("custom", True)]

    def refuse(value):
        raise TypeError("not this")

    assert hydra_state.capture(refuse)["resolvers"][0]["why"] == "TypeError: not this"
    OmegaConf.clear_resolver("custom")
    assert hydra_state.restore(state, pickle.loads) == []
    assert OmegaConf.create({"a": "${custom:4}"}).a == 4
    OmegaConf.clear_resolver("custom")
    state["resolvers"][0].update(pickle=None, why="TypeError: not this")
    assert hydra_state.restore(state, pickle.loads) == [
        "the resolver 'custom' of the controller is not known on the host: TypeError: not this"
    ]


def test_configs_and_the_search_path_travel(singletons, tmp_path):
    """What `compose()` needs in a job: configs that the host's import did not store, and folders as the host has them."""
    hydra.core.utils.setup_globals()
    store = ConfigStore.instance()
    (tmp_path / "there" / "conf").mkdir(parents=True)
    (tmp_path / "there" / "conf" / "config.yaml").write_text("defaults: [late: one]\nx: there\n")
    with initialize_config_dir(str(tmp_path), version_base=None):
        store.store(group="late", name="one", node={"a": 1})
        store.store(group="early", name="two", node={"b": 1})
        below = {str(tmp_path): "conf"}.get
        state = hydra_state.capture(pickle.dumps, below)
    del store.repo["late"]
    store.store(group="early", name="two", node={"b": 2})
    assert hydra_state.restore(state, pickle.loads, str(tmp_path / "there")) == []
    assert compose("config") == {"x": "there", "late": {"a": 1}}
    assert store.repo["early"]["two.yaml"].node == {"b": 2}, "what was stored here is left as it is"


def test_configs_that_cannot_travel_are_told(singletons):
    """By name, with the reason, and only where the host lacks them."""
    hydra.core.utils.setup_globals()
    ConfigStore.instance().store(group="late", name="one", node={"a": 1})

    def refuse(value):
        raise TypeError("not this")

    state = hydra_state.capture(refuse)
    assert [note for note in hydra_state.restore(state, pickle.loads) if "ConfigStore" in note] == []
    del ConfigStore.instance().repo["late"]
    (note,) = (note for note in hydra_state.restore(state, pickle.loads) if "ConfigStore" in note)
    assert "late/one.yaml" in note
    assert "TypeError: not this" in note
