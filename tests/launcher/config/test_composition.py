"""Composition: the run's config, and its jobs' overrides and configs, are those of `@hydra.main` and Hydra's sweeper."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from launcher.code.application import load_application
from launcher.config.compose import compose
from launcher.config.hydra import HydraComposition, as_caching_loader
from launcher.config.interpolations import unresolved
from launcher.config.job_config import without_value
from launcher.errors import CallbackError, ConfigError
from launcher.setup.callbacks import callback_nodes

APP = """
    from dataclasses import dataclass, field
    import hydra
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    @dataclass
    class Net:
        depth: int = 2

    ConfigStore.instance().store(group="net", name="stored_{name}", node=Net)
    OmegaConf.register_new_resolver("twice_{name}", lambda x: 2 * x, replace=True)

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def run(cfg):
        return cfg.lr

    if __name__ == "__main__":
        run()
"""

FILES = {
    "conf/config.yaml": """
        defaults: [db: mysql, net: stored_{name}, _self_]
        lr: 0.1
        double: ${{twice_{name}:${{lr}}}}
        when: ${{now:%Y%m%d%H%M%S%f}}
    """,
    "conf/db/mysql.yaml": "name: mysql\nport: 3306\n",
    "conf/db/pg.yaml": "name: pg\nport: 5432\n",
    "conf/db/broken.yaml": "name: ${{nothing.there}}\n",
    "conf/db/unparsable.yaml": "a: [\n",
    "conf/required.yaml": "defaults:\n  - db: ???\n  - _self_\nurl: ${{db.name}}\n",
    "conf/other.yaml": "lr: 5\nextra: 1\n",
    "conf/multi.yaml": "hydra: {{mode: MULTIRUN, sweeper: {{params: {{lr: '1,2'}}}}}}\nlr: 0\n",
    "conf/unregistered.yaml": "lr: ${{no_such_resolver:1}}\n",
    "conf/hydra/callbacks/cb.yaml": "# @package _global_\nhydra: {{callbacks: {{one: {{_target_: a.B, x: '${{lr}}'}}, none: null}}}}\n",
    "more/db/third.yaml": "name: third\nport: 3\n",
    "more/db/mysql.yaml": "name: mine\nport: 1\n",
    "more/only_here.yaml": "lr: 9\n",
    "found/pkgconf_{name}/__init__.py": "",
    "found/pkgconf_{name}/db/packaged.yaml": "name: packaged\nport: 4\n",
}

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def hydra_state(monkeypatch):
    """Restore Hydra's global state and the import path."""
    from hydra.core.singleton import Singleton

    before = dict(Singleton._instances)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    GlobalHydra.instance().clear()
    Singleton._instances.clear()
    Singleton._instances.update(before)


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A loaded Hydra app with its own name, with the working folder beside it."""
    name = f"happ_config_{next(_numbers)}"
    for path, text in {f"{name}.py": APP, **FILES}.items():
        file = tmp_path / path.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).format(name=name))
    monkeypatch.chdir(tmp_path)
    return load_application(f"{name}.py")


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A plain function in a file with its own name."""
    name = f"plain_config_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text("def train(cfg):\n    return cfg\n")
    monkeypatch.chdir(tmp_path)
    return load_application(f"{name}.py")


# -- one run -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_composed_as_hydra_composes_it(app):
    """The config, with its `hydra` node, is the one that the app itself would get, by its `--cfg all`."""
    overrides = ["db=pg", "lr=0.5", "+new=1", "hydra.job.name=named", "hydra.verbose=true"]
    with compose(app, overrides) as composition:
        assert (composition.mode, composition.task_name, composition.config_name) == ("RUN", app.name, "config")
        assert list(composition.job_overrides()) == [("db=pg", "lr=0.5", "+new=1")]
        config = composition.job_config(0, overrides)
        assert config is composition.config
        assert (config.lr, config.double, config.db.name, config.net.depth) == (0.5, 1.0, "pg", 2)
        assert OmegaConf.is_missing(config.hydra.job, "num")
        assert OmegaConf.is_missing(config.hydra.runtime, "output_dir")
        text = OmegaConf.to_yaml(config)
    command = [sys.executable, str(app.file), *overrides, "hydra.mode=RUN", "--cfg", "all"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    def comparable(yaml):
        plain = OmegaConf.to_container(OmegaConf.create(yaml))
        for key in ("help", "hydra_help"):
            plain["hydra"].pop(key)
        plain["hydra"]["mode"] = str(plain["hydra"]["mode"]).rpartition(".")[2]
        return plain

    assert comparable(text) == comparable(done.stdout)


@pytest.mark.slow
def test_configs_may_come_from_other_places(app):
    """`--config-name`, `--config-dir`, `--config-path`, `hydra.searchpath` with file:// and pkg://, the ConfigStore."""
    with compose(app, config_name="other") as composition:
        assert composition.config.extra == 1
        assert composition.config_name == "other"
    with compose(app, ["db=third"], config_dir="more") as composition:
        assert composition.config.db.port == 3
    with compose(app, config_path="more", config_name="only_here") as composition:
        assert composition.config.lr == 9
    with compose(app, ["db=third", f"hydra.searchpath=[file://{Path.cwd()}/more]"]) as composition:
        assert composition.config.db.name == "third"
    sys.path.insert(0, str(Path.cwd() / "found"))
    package = next(Path("found").iterdir()).name
    with compose(app, ["db=packaged", f"hydra.searchpath=[pkg://{package}]"]) as composition:
        assert composition.config.db.port == 4


def test_an_app_may_be_started_from_another_folder(app, monkeypatch, tmp_path_factory):
    """config_path is relative to the file. `hydra.runtime.cwd` is the user's folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with compose(app) as composition:
        assert composition.config.lr == 0.1
        assert composition.config.hydra.runtime.cwd == str(elsewhere)
        assert composition.folder.parent.parent == elsewhere / "outputs"


def test_a_module_in_a_package_is_composed(tmp_path, monkeypatch):
    """As with `python -m package.app`, config_path is relative to its file, and the job's name is the last part of the
    module's name.
    """
    name = f"pkgapp{next(_numbers)}"
    for path, text in {
        f"{name}/__init__.py": "",
        f"{name}/inner.py": APP,
        f"{name}/conf/config.yaml": "lr: 4\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(textwrap.dedent(text).replace("{name}", name))
    monkeypatch.chdir(tmp_path)
    with compose(load_application(f"{name}.inner")) as composition:
        assert (composition.config.lr, composition.task_name) == (4, "inner")


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


@pytest.mark.parametrize(
    ("overrides", "multirun", "says"),
    [
        (["lr=1,2"], False, "Ambiguous value for argument 'lr=1,2'"),
        (["lr=1,2"], False, "use `launcher multirun` instead of `run`"),
        (["nothing=1"], False, "Could not override 'nothing'"),
        (["db=mongo"], False, "Available options in 'db'"),
        (["db=unparsable"], False, "expected the node content"),
        (["net.depth=deep"], False, "could not be converted to Integer"),
        (["a b"], False, "a b"),
        (["lr=range(1,"], True, "lr=range"),
        (["hydra.verbose=true,false"], True, "Sweeping over Hydra's configuration is not supported"),
    ],
)
def test_an_error_of_hydra_is_a_config_error(app, overrides, multirun, says):
    """A ConfigError has Hydra's own message. Hydra's state is restored."""
    with pytest.raises(ConfigError) as caught:
        compose(app, overrides, multirun=multirun)
    assert says in str(caught.value)
    assert not GlobalHydra.instance().is_initialized()


def test_missing_configs_and_folders_are_named(app):
    """The message names the config or the folder."""
    with pytest.raises(ConfigError, match="Cannot find primary config 'nope'"):
        compose(app, config_name="nope")
    with pytest.raises(ConfigError, match="nowhere' not found"):
        compose(app, config_dir="nowhere")
    with pytest.raises(ConfigError, match="Primary config directory not found"):
        compose(app, config_path="nowhere")


# -- a sweep -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_jobs_are_those_of_hydras_sweeper(app):
    """They have the same overrides, numbers, ids and folders.

    `${now:}` in the sweep's folder is the same in all jobs. Each job has its own config.
    """
    with compose(app, ["lr=0.1,0.2", "db=mysql,pg", "+tag=x"], multirun=True) as composition:
        jobs = list(composition.job_overrides())
        assert composition.count == 4
        assert jobs == [
            ("lr=0.1", "db=mysql", "+tag=x"),
            ("lr=0.1", "db=pg", "+tag=x"),
            ("lr=0.2", "db=mysql", "+tag=x"),
            ("lr=0.2", "db=pg", "+tag=x"),
        ]
        configs = [composition.job_config(num, overrides, f"run#{num}") for num, overrides in enumerate(jobs)]
        assert [(one.lr, one.db.name, one.tag) for one in configs] == [
            (0.1, "mysql", "x"),
            (0.1, "pg", "x"),
            (0.2, "mysql", "x"),
            (0.2, "pg", "x"),
        ]
        assert [(one.hydra.job.num, one.hydra.job.id) for one in configs] == [(num, f"run#{num}") for num in range(4)]
        assert [one.hydra.job.override_dirname for one in configs[:2]] == [
            "+tag=x,db=mysql,lr=0.1",
            "+tag=x,db=pg,lr=0.1",
        ]
        assert {str(one.hydra.sweep.dir) for one in configs} == {str(composition.config.hydra.sweep.dir)}
        assert [composition.output_dir(one) for one in configs] == [composition.folder / str(num) for num in range(4)]
        assert composition.job_config(0, jobs[0]).hydra.job.id == "0"
        configs[0].lr = 7
        assert composition.job_config(0, jobs[0]).lr == 0.1
        composition.save_multirun(composition.folder)
        assert OmegaConf.load(composition.folder / "multirun.yaml").hydra.mode.endswith("MULTIRUN")


def test_a_sweep_of_nothing_is_one_job(app):
    """This is the same as with Hydra."""
    with compose(app, ["lr=3"], multirun=True) as composition:
        assert list(composition.job_overrides()) == [("lr=3",)]


def test_jobs_are_made_as_they_are_asked_for(app):
    """A sweep of 10**15 jobs begins at once."""
    overrides = [f"+k{index}=range(0,1000)" for index in range(5)]
    with compose(app, overrides, multirun=True) as composition:
        assert composition.count == 10**15
        jobs = composition.job_overrides()
        assert next(jobs) == tuple(f"+k{index}=0" for index in range(5))
        assert next(jobs)[-1] == "+k4=1"


SWEEPS = [
    "a=1,2",
    "a=3",
    "+b=x,y,z",
    "b=range(1,4)",
    "c=choice(1,2)",
    "d=[1,2]",
    "+d=[1],[2]",
    "e='x,y'",
    "f=tag(t,choice(a,b))",
    "a=sort(3,1,2)",
    "~g",
    "h={a:1},{b:2}",
    "++a=5,6",
    "i=range(0.5,2,step=0.5)",
    "j=null,true",
]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(SWEEPS), max_size=5))
def test_any_sweep_has_the_jobs_of_the_basic_sweeper(overrides):
    """For any overrides, they are the jobs of hydra/_internal/core_plugins/basic_sweeper.py, in its order."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    from launcher.code.application import Application
    from launcher.config.plain import PlainComposition

    app = Application(plain_task, "m", "plain_task", None, Path())
    composition = PlainComposition.__new__(PlainComposition)
    composition.app, composition.mode = app, "MULTIRUN"
    composition._parsed = parsed
    assert [list(job) for job in composition.job_overrides()] == expected
    assert composition.count == len(expected)


def plain_task(cfg):
    return cfg


def test_globs_sweep_over_a_group(app):
    """`glob` knows the options of the app's groups."""
    with compose(app, ["db=glob(*,exclude=[broken,unparsable])"], multirun=True) as composition:
        assert list(composition.job_overrides()) == [("db=mysql",), ("db=pg",)]


def test_parameters_of_the_sweeper_come_first(app):
    """`hydra.sweeper.params` comes first. The command line overrides an item in its place."""
    with compose(app, ["+x=1", "lr=7"], config_name="multi", multirun=True) as composition:
        assert list(composition.job_overrides()) == [("lr=7", "+x=1")]


def test_interval_sweeps_are_refused_with_hydras_message(app):
    """The basic sweeper cannot make such sweeps."""
    with (
        compose(app, ["lr=interval(0,1)"], multirun=True) as composition,
        pytest.raises(ConfigError, match="INTERVAL_SWEEP"),
    ):
        composition.job_overrides()


# -- checks before anything starts ---------------------------------------------------------------------------------------


def test_every_choice_of_groups_is_composed_before_the_first_job(app, monkeypatch):
    """Each distinct choice is composed once. Values of plain keys do not multiply the choices."""
    with compose(app, ["db=mysql,pg", "lr=range(0,50)"], multirun=True) as composition:
        asked = []
        original = composition.job_config
        monkeypatch.setattr(
            composition, "job_config", lambda num, overrides: asked.append(overrides) or original(num, overrides)
        )
        composition.check()
        assert asked == [("db=mysql", "lr=0"), ("db=pg", "lr=0")]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ("mongo", "Available options"),
        ("unparsable", "expected the node"),
        ("broken", "the config has no nothing.there"),
    ],
)
def test_a_bad_choice_is_found_and_named(app, choice, says):
    """It is found before anything starts, and named with its overrides."""
    with compose(app, [f"db=mysql,{choice}"], multirun=True) as composition:
        with pytest.raises(ConfigError) as caught:
            composition.check()
        assert says in str(caught.value)
        assert f"db={choice}" in str(caught.value)


def test_an_unregistered_resolver_is_refused(app):
    """The message names the key that uses it."""
    says = r"lr: .*no resolver 'no_such_resolver'"
    with compose(app, config_name="unregistered") as composition, pytest.raises(ConfigError, match=says):
        composition.check()


def test_many_choices_are_checked_one_by_one(app, monkeypatch):
    """If their product would take minutes, each option is still composed once."""
    with compose(app, ["db=mysql,pg"], multirun=True) as composition:
        monkeypatch.setattr("launcher.config.composition._MAX_CHECKED", 1)
        assert list(composition._distinct_choices()) == [("db=mysql",), ("db=pg",)]


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


@pytest.mark.slow
def test_a_group_that_only_jobs_choose_may_be_missing(app):
    """In the config of the whole sweep, a required group has no choice yet, though the config refers to it."""
    with compose(app, ["db=mysql,pg"], multirun=True, config_name="required") as composition:
        composition.check()
    found = r"with db=broken the config does not resolve: .*nothing\.there"
    with (
        compose(app, ["db=mysql,broken"], multirun=True, config_name="required") as composition,
        pytest.raises(ConfigError, match=found),
    ):
        composition.check()


@pytest.mark.slow
def test_an_override_is_not_looked_up_here(app, monkeypatch):
    """It may name a secret of the host, or one that is set here, too, and must not get into the override."""
    line = "+token='${oc.env:ONLY_THERE}'"
    for value in (None, "from here"):
        if value is not None:
            monkeypatch.setenv("ONLY_THERE", value)
        with compose(app, ["+x=1,2", line], multirun=True) as composition:
            composition.check()
            assert [line in overrides for overrides in composition.job_overrides()] == [True, True]


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


def test_nothing_is_resolved_by_looking():
    """A resolver's result that is cached here would be sent to hosts where it is wrong."""
    called = []
    OmegaConf.register_new_resolver("launcher_test_looking", lambda: called.append(1), replace=True)
    assert list(unresolved(OmegaConf.create({"a": "${launcher_test_looking:}"}))) == []
    assert not called
    OmegaConf.clear_resolver("launcher_test_looking")


# -- other sweepers ------------------------------------------------------------------------------------------------------


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


# -- plain functions -----------------------------------------------------------------------------------------------------


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


@pytest.mark.slow
def test_a_plain_function_may_have_a_config(plain):
    """The config may be in a folder or beside its file.

    It is composed like a Hydra app's, with defaults list and groups.
    """
    for path, text in {
        "conf/config.yaml": "defaults: [db: a]\nlr: 1\n",
        "conf/db/a.yaml": "n: 1\n",
        "conf/db/b.yaml": "n: 2\n",
        "conf/x.yaml": "lr: 2\n",
        "beside.yaml": "lr: 3\n",
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    with compose(plain, ["db=b"], config_dir="conf") as composition:
        assert composition.is_hydra
        assert (composition.config.lr, composition.config.db.n, composition.config_name) == (1, 2, "config")
        assert composition.task_name == plain.name
    with compose(plain, config_dir=Path("conf").absolute(), config_name="x") as composition:
        assert composition.config.lr == 2
    with compose(plain, ["lr=4,5"], config_name="beside", multirun=True) as composition:
        assert [composition.job_config(num, job).lr for num, job in enumerate(composition.job_overrides())] == [4, 5]
    with pytest.raises(ConfigError, match="does not exist"):
        compose(plain, config_dir="nowhere")


def test_callbacks_are_found_as_plain_data(app, plain):
    """They have their names and their order, and are resolved. One that is set to null is left out."""
    with compose(app, ["hydra/callbacks=cb"]) as composition:
        assert callback_nodes(composition.config) == {"one": {"_target_": "a.B", "x": 0.1}}
    with compose(plain, ["hydra.callbacks.log._target_=a.B"]) as composition:
        assert callback_nodes(composition.config) == {"log": {"_target_": "a.B"}}
    assert callback_nodes(OmegaConf.create({})) == {}


def test_callbacks_that_are_not_a_mapping_are_refused(plain):
    """They are not silently ignored. The message is the same as for a config given in Python."""
    with compose(plain, ["hydra.callbacks=3"]) as composition, pytest.raises(CallbackError, match="not a mapping"):
        callback_nodes(composition.config)
