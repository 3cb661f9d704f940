"""Composition: the run's config, and its jobs' overrides and configs, are those of `@hydra.main` and Hydra's sweeper."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from launcher.code.application.application import load_application
from launcher.config.compose import compose
from launcher.errors import CallbackError, ConfigError
from launcher.setup.callbacks import callback_nodes
from tests.examples import examples
from tests.launcher.config.apps import APP, numbers

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
    name = f"pkgapp{next(numbers)}"
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


@pytest.mark.parametrize(
    ("overrides", "multirun", "says"),
    [
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


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(SWEEPS), max_size=5))
def test_any_sweep_has_the_jobs_of_the_basic_sweeper(overrides):
    """For any overrides, they are the jobs of hydra/_internal/core_plugins/basic_sweeper.py, in its order."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    from launcher.code.application.application import Application
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


# -- other sweepers ------------------------------------------------------------------------------------------------------


# -- plain functions -----------------------------------------------------------------------------------------------------


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
