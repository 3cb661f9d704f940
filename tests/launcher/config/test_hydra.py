"""A Hydra app's configs: its mode, its own sweeper, and its loader with a cache."""

from __future__ import annotations

import sys
import types

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from launcher.config.compose import compose
from launcher.config.hydra import HydraComposition, as_caching_loader
from launcher.errors import ConfigError


def test_the_mode_is_as_hydra_decides(app):
    """The config may ask for a multirun. `--multirun` overrides a config that asks for a run."""
    with compose(app, config_name="multi") as composition:
        assert composition.mode == "MULTIRUN"
        assert list(composition.job_overrides()) == [("lr=1",), ("lr=2",)]
    with compose(app, multirun=True) as composition:
        assert composition.mode == "MULTIRUN"
    with compose(app, ["hydra.mode=RUN"], multirun=True) as composition:
        assert composition.mode == "MULTIRUN"
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize("multirun", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("config_name", "overrides"),
    [
        ("config", ["lr=5", "hydra.job.chdir=true"]),
        pytest.param("config", ["hydra.mode=RUN"], marks=pytest.mark.slow),
        ("config", ["hydra.mode=MULTIRUN"]),
        ("config", ["lr=1,2"]),
        ("multi", ["lr=${oc.env:X}"]),
        pytest.param("multi", ["gone=1"], marks=pytest.mark.slow),
        ("absent", []),
    ],
    ids=str,
)
def test_one_composition_gives_what_hydra_composes_in_two(app, monkeypatch, overrides, config_name, multirun):
    """Hydra composes first to find the mode, and then again. The configs are the same, and so are the errors."""

    def outcome():
        try:
            with compose(app, overrides, config_name=config_name, multirun=multirun) as composition:
                return (
                    composition.mode,
                    OmegaConf.to_container(composition.config),
                    OmegaConf.to_yaml(composition.config),
                )
        except ConfigError as error:
            return str(error)

    once = outcome()
    monkeypatch.setattr("launcher.config.hydra.compose_once", lambda *given: None)
    assert once == outcome()


def test_it_composes_once(app, monkeypatch):
    """That halves the time to the first job."""
    calls = []
    compose_config = Hydra.compose_config
    monkeypatch.setattr(
        Hydra, "compose_config", lambda *given, **more: calls.append(1) or compose_config(*given, **more)
    )
    with compose(app, ["lr=5"]):
        assert len(calls) == 1


def test_parameters_of_the_sweeper_come_first(app):
    """`hydra.sweeper.params` comes first. The command line overrides an item in its place."""
    with compose(app, ["+x=1", "lr=7"], config_name="multi", multirun=True) as composition:
        assert list(composition.job_overrides()) == [("lr=7", "+x=1")]


def test_another_sweeper_runs_unchanged(app, monkeypatch):
    """Hydra builds it. It asks for the launcher, gets the given one, and chooses its own batches."""

    class Halving(Sweeper):
        def __init__(self, rounds):
            self.rounds = rounds

        def setup(self, *, hydra_context, task_function, config):
            self.config, self.hydra_context = config, hydra_context
            self.launcher = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )

        def sweep(self, arguments):
            results = []
            for number in range(self.rounds):
                batch = [[f"lr={number}.{index}"] for index in range(2)]
                self.validate_batch_is_legal(batch)
                results.append(self.launcher.launch(batch, initial_job_idx=2 * number))
            return arguments, results

    Halving.__module__, Halving.__qualname__ = "hydra_plugins.launcher_test", "Halving"
    module = types.ModuleType(Halving.__module__)
    module.Halving = Halving
    monkeypatch.setitem(sys.modules, Halving.__module__, module)
    monkeypatch.setattr(sys.modules["hydra_plugins"], "launcher_test", module, raising=False)
    plugins = Plugins.instance()
    plugins.register(Halving)

    class Given:
        def setup(self, **kwargs):
            self.kwargs = kwargs

        def launch(self, job_overrides, initial_job_idx):
            return [(initial_job_idx + index, one) for index, one in enumerate(job_overrides)]

    node = {"_target_": "hydra_plugins.launcher_test.Halving", "rounds": 2}
    ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=node)
    overrides = ["hydra/sweeper=halving", "lr=interval(0,1)"]
    try:
        with compose(app, overrides, multirun=True) as composition:
            assert isinstance(composition, HydraComposition)
            assert not composition.is_basic_sweeper
            composition.check()
            launcher = Given()
            arguments, results = composition.sweep_with(launcher, "callbacks")
            assert arguments == ["lr=interval(0,1)"]
            assert results == [[(0, ["lr=0.0"]), (1, ["lr=0.1"])], [(2, ["lr=1.0"]), (3, ["lr=1.1"])]]
            assert launcher.kwargs["task_function"] is app.task
            assert launcher.kwargs["hydra_context"].callbacks == "callbacks"
            assert "instantiate_launcher" not in vars(plugins)
    finally:
        del plugins.class_name_to_class["hydra_plugins.launcher_test.Halving"]
        for known in plugins.plugin_type_to_subclass_list.values():
            if Halving in known:
                known.remove(Halving)


def test_hydras_own_loader_can_get_a_cache(app):
    """The loader that Hydra passes to a launcher plugin can get a cache."""
    with compose(app, ["lr=1,2"], multirun=True) as composition:
        own = ConfigLoaderImpl(composition.config_loader.get_search_path())
        loader = as_caching_loader(own)
        assert loader is not own
        assert loader.load_sweep_config(composition.config, ["lr=2"]).lr == 2
        assert as_caching_loader(loader) is loader
