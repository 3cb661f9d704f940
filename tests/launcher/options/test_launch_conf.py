"""LaunchConf: its fields, how one is made of what was given, and what follows from them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from launcher.cli import flags
from launcher.errors import ConfigError
from launcher.options import Group, LaunchConf, Option, option_fields
from launcher.options.checks import parse_duration
from remote_agent.job import ERROR_KINDS
from tests.hydra import schema


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 300),
        ({"hook_timeout": "20m"}, 1200),
        ({"hook_timeout": 5, "shutdown_timeout": "1m"}, 60),
        ({"shutdown_timeout": "1m"}, 60),
        ({"hook_timeout": 5, "shutdown_timeout": None}, 5),
    ],
)
def test_the_shutdown_timeout_is_the_hook_timeout_unless_it_is_set(fields, seconds):
    """More time for hooks is also more time for what trackers send at exit; a shutdown timeout of its own wins."""
    assert LaunchConf(**fields).shutdown_seconds == seconds
    assert LaunchConf().replaced(**fields).shutdown_seconds == seconds
    assert LaunchConf.from_mapping(OmegaConf.create(fields)).shutdown_seconds == seconds


@pytest.mark.parametrize(
    ("key", "near"),
    [("host", "hosts"), ("timout", "timeout"), ("max_failure", "max_failures"), ("forwardenv", "forward_env")],
)
def test_an_unknown_key_names_the_nearest_one(key, near):
    """If no key is near, all are listed."""
    for make in (lambda: LaunchConf().replaced(**{key: 1}), lambda: LaunchConf.from_mapping({key: 1})):
        with pytest.raises(ConfigError, match=f"unknown option '{key}'; did you mean '{near}'"):
            make()
    with pytest.raises(ConfigError, match="the options are hosts, "):
        LaunchConf().replaced(zzzzzz=1)


def test_from_a_config_of_omegaconf():
    """As Hydra gives it: nested nodes become plain data, and interpolations are resolved."""
    config = OmegaConf.create(
        {"hosts": ["a", "${other}"], "env": {"X": "${other}"}, "other": "b", "timeout": "2m", "retries": {"killed": 1}}
    )
    del config["other"]
    config = OmegaConf.merge({"other": "b"}, config)
    values = {key: config[key] for key in config if key != "other"}
    conf = LaunchConf.from_mapping(values)
    assert conf.hosts == ("a", "b")
    assert type(conf.env) is dict
    assert conf.env == {"X": "b"}
    assert conf.timeout == 120
    assert conf.retries == {"killed": 1}


def test_retries_do_not_count_for_errors_that_another_attempt_would_not_change():
    """Cancelled jobs, configs that do not compose, applications that cannot be imported."""
    by_kind = LaunchConf(retries=2).retries_by_kind
    assert {kind: by_kind.get(kind, by_kind["*"]) for kind in ERROR_KINDS}["killed"] == 2
    assert by_kind["cancelled"] == by_kind["config"] == by_kind["import"] == 0


def test_the_environment_of_jobs(monkeypatch):
    """Only named variables are forwarded; a given value wins over a forwarded one; a missing variable is named."""
    monkeypatch.setenv("LAUNCHER_TEST_A", "a $x\n'q'")
    monkeypatch.setenv("LAUNCHER_TEST_B", "b")
    conf = LaunchConf(forward_env=["LAUNCHER_TEST_A", "LAUNCHER_TEST_B"], env={"LAUNCHER_TEST_B": "mine"})
    assert conf.variables() == {"LAUNCHER_TEST_A": "a $x\n'q'", "LAUNCHER_TEST_B": "mine"}
    with pytest.raises(ConfigError, match="LAUNCHER_TEST_NONE is not set here"):
        LaunchConf(forward_env="LAUNCHER_TEST_NONE").variables()


def test_a_conf_does_not_change():
    """It is frozen, and it has copies of what it was given."""
    env = {"A": "1"}
    conf = LaunchConf(env=env)
    env["A"] = "2"
    assert conf.env == {"A": "1"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        conf.live = True
    assert dataclasses.replace(conf, live=True).live
    assert conf.replaced() == conf


#: Fields that have no option of their own on the command line, and why.
NO_OPTION = {"forward_env": "`--env NAME` sets it"}
#: Options of the command line that are no field, and why.
NO_FIELD = {"output": "the patterns of `outputs`, whose own option is a switch"}


def _declared() -> dict[str, set[str]]:
    """The options that the command line makes of LaunchConf, each with its flags."""

    @flags.takes_options()
    def command(**given: object) -> None:
        """A command with all of them."""

    return {
        name: {flag for declared in parameter.annotation.__metadata__[0].flags for flag in declared.split("/")}
        for name, parameter in inspect.signature(command).parameters.items()
    }


def test_the_command_line_has_every_field():
    """Except those that are named here. Errors use the names of the options."""
    declared = _declared()
    fields = {field.name for field in dataclasses.fields(LaunchConf)}
    assert fields - set(declared) == set(NO_OPTION)
    assert set(declared) - fields == set(NO_FIELD)
    known = set().union(*declared.values())
    assert [name for name in fields if flags.flag_of(name) not in known] == []
    assert flags.flag_of("on_error.upload") == "--on-error upload"
    assert flags.flag_of("--older-than") == "--older-than"


def test_a_new_field_has_its_option_at_once(monkeypatch: pytest.MonkeyPatch):
    """The command line says its flag, its values and its default, and reads it."""
    added = Option(parse_duration, "Wait for this.", Group.CODE, metavar="DURATION", usual="5m")
    monkeypatch.setitem(flags._OPTIONS, "patience_of_all", added)
    assert _declared()["patience_of_all"] == {"--patience-of-all"}
    assert flags.flag_of("patience_of_all") == "--patience-of-all"
    assert flags.conf_values({"patience_of_all": "3m"}) == {"patience_of_all": "3m"}


def test_every_field_says_what_it_does():
    """In a sentence that the command line and the schema of the plugin show."""
    for name, option in option_fields().items():
        assert option.help[0].isupper() or option.help.startswith("auto:"), name
        assert option.help.endswith("."), name


def test_the_schema_of_the_plugin_is_written_from_the_fields():
    """`python -m tests.hydra.schema` has been run since a field changed."""
    assert schema.FILE.read_text() == schema.written()


def test_the_plugins_schema_has_the_same_fields_and_defaults():
    """`hydra/launcher=remote` has every field of LaunchConf, without an exception."""
    from hydra_plugins.hydra_remote_launcher._conf import RemoteLauncherConf

    theirs = {field.name: field for field in dataclasses.fields(RemoteLauncherConf) if not field.name.startswith("_")}
    assert list(theirs) == [field.name for field in dataclasses.fields(LaunchConf)]
    values = {name: getattr(RemoteLauncherConf(), name) for name in theirs}
    assert LaunchConf.from_mapping(values) == LaunchConf()


def test_the_schema_imports_nothing_of_ours():
    """Every Hydra app imports it, also one whose own package is called `launcher`."""
    code = (
        "import sys, hydra_plugins.hydra_remote_launcher._conf\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('launcher', 'remote_agent')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=schema.FILE.parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_error_can_use_another_name_for_its_option():
    """It stays an error of the same class."""
    with pytest.raises(ConfigError) as caught:
        LaunchConf(timeout=-1)
    said = caught.value.named("--timeout")
    assert (type(said), str(said)[:13]) == (ConfigError, "--timeout: -1")
    assert str(ConfigError("as it is").named("--x")) == "as it is"
