"""Hydra's process-wide state: what is captured on the controller, and what is restored on a host."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
import sys
import types
from typing import Any

import cloudpickle
import hydra.core.utils
import pytest
from hydra import compose, initialize_config_dir, version
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from remote_agent.hydra import state as hydra_state


def test_a_version_that_nobody_has_set_is_not_captured(singletons):
    """Also if Hydra was imported again in the meantime, and has another object for it."""
    version.VersionBase.instance().version_base = object()
    assert hydra_state.capture(cloudpickle.dumps)["version_base"] is None


def test_capture_has_what_the_app_registered(singletons):
    """Not the resolvers of omegaconf and Hydra. For a resolver that cannot be pickled, it has the reason."""
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


def test_configs_and_the_search_path_are_restored(singletons, tmp_path):
    """As `compose()` needs them in a job: configs that the host's import did not store, and folders as they are on the host."""
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


def test_configs_that_cannot_be_pickled_are_reported(singletons):
    """By name, with the reason, and only if the host lacks them."""
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


@pytest.fixture
def only_here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A config class of a module that the host will not have."""
    module = types.ModuleType("only_here")
    conf: Any = dataclasses.make_dataclass("Conf", [("port", int, 7), ("sampler", str, "???")])
    conf.__module__ = "only_here"
    vars(module)["Conf"] = conf
    monkeypatch.setitem(sys.modules, "only_here", module)
    return conf


@pytest.fixture
def store(singletons: None) -> Any:
    """A ConfigStore with only Hydra's own configs."""
    hydra.core.utils.setup_globals()
    return ConfigStore.instance()


def test_a_config_that_cannot_be_loaded_affects_no_other(
    store: Any, only_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others come unchanged. It comes as plain content, which composes, and a note names it with the reason."""
    store.store(group="late", name="good", node={"a": 1})
    store.store(group="late", name="typed", node=only_here)
    state = hydra_state.capture(pickle.dumps)
    del store.repo["late"]
    monkeypatch.delitem(sys.modules, "only_here")
    (note,) = hydra_state.restore(state, pickle.loads)
    assert note == (
        "configs in the ConfigStore of the controller have no types on the host: late/typed.yaml (ModuleNotFoundError: "
        "No module named 'only_here')"
    )
    assert store.load("late/good.yaml").node == {"a": 1}
    typed = store.load("late/typed.yaml").node
    assert OmegaConf.to_container(typed) == {"port": 7, "sampler": "???"}
    assert OmegaConf.get_type(typed) is dict


def test_a_config_without_a_plain_form_is_reported(store: Any, only_here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is not plain data. The other configs come."""
    node = OmegaConf.create({"thing": only_here()}, flags={"allow_objects": True})
    held = OmegaConf.create({"path": pathlib.Path("/x"), "inner": node})
    store.store(name="held", node=held)
    store.store(name="good", node={"a": 1})
    state = hydra_state.capture(pickle.dumps)
    del store.repo["held.yaml"]
    del store.repo["good.yaml"]
    monkeypatch.delitem(sys.modules, "only_here")
    (note,) = hydra_state.restore(state, pickle.loads)
    assert note.startswith("configs in the ConfigStore of the controller are not known on the host: held.yaml (")
    assert store.load("good.yaml").node == {"a": 1}
    assert "held.yaml" not in store.repo


def test_missing_configs_of_controller_plugins_are_not_reported(
    store: Any, only_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job sweeps or launches, so nobody needs a note about the controller's sweeper. `compose()` finds its config."""
    store.store(group="hydra/sweeper", name="mine", node=only_here)
    state = hydra_state.capture(pickle.dumps)
    del store.repo["hydra"]["sweeper"]["mine.yaml"]
    monkeypatch.delitem(sys.modules, "only_here")
    assert hydra_state.restore(state, pickle.loads) == []
    assert store.load("hydra/sweeper/mine.yaml").node.port == 7


def test_code_in_one_config_does_not_affect_others_under_another_python(store: Any) -> None:
    """A class that is pickled by value needs the same minor Python. A config without code does not."""

    @dataclasses.dataclass
    class Local:
        x: int = 1

    store.store(name="local", node=Local)
    store.store(name="good", node={"a": 1})
    state = hydra_state.capture(cloudpickle.dumps)
    state["python"] = [2, 7]
    del store.repo["local.yaml"]
    del store.repo["good.yaml"]
    (note,) = hydra_state.restore(state, pickle.loads)
    assert "local.yaml (it is pickled by value, so the host would need Python 2.7)" in note
    assert store.load("good.yaml").node == {"a": 1}
    assert store.load("local.yaml").node == {"x": 1}


def test_a_config_in_the_place_of_a_group_stays(store: Any) -> None:
    """What the host's import has stored is never replaced."""
    store.store(group="late/deep", name="one", node={"a": 1})
    state = hydra_state.capture(pickle.dumps)
    del store.repo["late"]
    store.repo["late"] = store.repo["_dummy_empty_config_.yaml"]
    (note,) = hydra_state.restore(state, pickle.loads)
    assert "late/deep/one.yaml" in note


def test_a_later_versions_state_is_refused_by_name(store: Any) -> None:
    """A later version's state is not guessed."""
    state = {**hydra_state.capture(pickle.dumps), "version": 3}
    with pytest.raises(ValueError, match="version 3, by another version of the launcher"):
        hydra_state.restore(state, pickle.loads)


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_first_versions_state_can_be_restored(store: Any, is_whole: bool) -> None:
    """Version 1 had all configs in one pickle. They are restored, or reported if the pickle cannot be loaded."""
    store.store("known", {"x": 1}, group="of_mine", provider="app")
    state = {**hydra_state.capture(pickle.dumps), "version": 1}
    (entry,) = [one for one in state["configs"] if one["path"] == ["of_mine", "known.yaml"]]
    path = tuple(entry["path"])
    held = pickle.dumps({path: pickle.loads(entry["pickle"])}) if is_whole else b"no pickle"
    state["configs"] = {"paths": [path], "pickle": held, "by_value": False, "why": ""}
    store.repo.pop("of_mine")
    notes = hydra_state.restore(state, pickle.loads)
    assert ("of_mine/known.yaml" in " ".join(notes)) is not is_whole
    assert (store.repo.get("of_mine", {}).get("known.yaml") is not None) is is_whole


def test_the_first_version_may_have_no_configs(store: Any) -> None:
    """For an application without configs, version 1 wrote None."""
    state = {**hydra_state.capture(pickle.dumps), "version": 1, "configs": None}
    assert hydra_state.restore(state, pickle.loads) == []
