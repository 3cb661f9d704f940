"""An allowed value of an option is normalised; a wrong one is refused with its field and with what is allowed."""

from __future__ import annotations

import math
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import ConfigError
from launcher.options import LaunchConf
from launcher.options.checks import parse_duration, parse_size


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("2d", 172800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (" 1 h 5 s ", 3605),
        ("1H", 3600),
    ],
)
def test_durations(given, seconds):
    """Seconds, or text with units."""
    assert parse_duration(given, "timeout") == seconds
    assert LaunchConf(timeout=given).timeout == seconds


@pytest.mark.parametrize(
    "given", [0, -1, "", "x", "1y", "m", "1h30", "-5m", True, None, [], math.nan, math.inf, 10**9, "1e3", b"5"]
)
def test_a_wrong_duration_is_refused(given):
    """The error names the field and says what is allowed."""
    with pytest.raises(ConfigError, match=r"^hook_timeout: .* seconds, or text such as"):
        LaunchConf(hook_timeout=given)


def test_grace_may_be_zero():
    """Then a job is killed at once."""
    assert LaunchConf(grace=0).grace == 0
    with pytest.raises(ConfigError, match="below zero"):
        LaunchConf(grace=-1)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (1, 1),
        ("7", 7),
        ("7b", 7),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("100MiB", 104857600),
        ("100M", 104857600),
        ("1.5GB", 1500000000),
        ("2 gib", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes(given, size):
    """Bytes, or text with units; decimal ones only with a B."""
    assert parse_size(given, "max_code_size") == size
    assert LaunchConf(max_code_size=given).max_code_bytes == size


@pytest.mark.parametrize("given", [0, -1, "", "MiB", "1 XB", "1e9", True, 1.5, None, "-1MiB"])
def test_a_wrong_size_is_refused(given):
    """The error names the field and says what is allowed."""
    with pytest.raises(ConfigError, match=r"^max_code_size: .* 100MiB"):
        LaunchConf(max_code_size=given)


@given(st.floats(min_value=0.001, max_value=10**8))
def test_any_number_of_seconds_is_itself(seconds):
    """As a number or as its text."""
    assert parse_duration(seconds, "x") == seconds


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hosts": 3}, "hosts: 3"),
        ({"hosts": [3]}, "hosts: 3"),
        ({"hosts": ["gpu1", ""]}, "hosts: ''"),
        ({"hosts": None}, "hosts: None"),
        ({"hosts_file": 3}, "hosts_file"),
        ({"python": "a\nb"}, "python"),
        ({"setup": [1]}, "setup"),
        ({"setup": {"a": "b"}}, "setup"),
        ({"setup": ["a\0b"]}, "setup"),
        ({"env": ["A"]}, "env: is not a mapping"),
        ({"env": {"1A": "x"}}, "env: '1A'"),
        ({"env": {"A=B": "x"}}, "env: 'A=B'"),
        ({"env": {"A": None}}, "env.A: the value"),
        ({"env": {"A": "x\0y"}}, "env.A: the value"),
        ({"forward_env": ["A B"]}, "forward_env: 'A B'"),
        ({"code": "share"}, "did you mean shared?"),
        ({"isolation": "threads"}, "isolation: 'threads' is not one of auto, fork, spawn"),
        ({"outputs": ["/etc"]}, "outputs: '/etc' leads out"),
        ({"outputs": ["a/../../b"]}, "leads out"),
        ({"outputs": ["~/x"]}, "leads out"),
        ({"outputs": "a\0"}, "outputs"),
        ({"outputs": None}, "outputs"),
        ({"sync_outputs": "often"}, "sync_outputs: 'often'"),
        ({"sync_outputs": "10ms"}, "sync_outputs: '10ms' is less than a second"),
        ({"sync_outputs": 5, "outputs": False}, "sync_outputs: it cannot be combined"),
        ({"sync_only": ["*"]}, "sync_only: it works only with sync_outputs"),
        ({"sync_outputs": 5, "sync_only": ["../*"]}, "sync_only: '../*' leads out"),
        ({"live": "yes"}, "live: 'yes' is not true or false"),
        ({"retries": -1}, "retries: -1"),
        ({"retries": 1.5}, "retries: 1.5"),
        ({"retries": {"exeption": 1}}, "did you mean 'exception'?"),
        ({"retries": {"killed": "2"}}, "retries.killed"),
        ({"retries": {"cancelled": 1}}, "cancelled"),
        ({"on_host_loss": "abort"}, "wait, retry, fail"),
        ({"fail_fast": 1}, "fail_fast"),
        ({"max_failures": 0}, "max_failures: 0"),
        ({"lease": "soon"}, "lease"),
        ({"on_error": {"cb": "ignore"}}, "on_error.cb"),
        ({"on_error": "warn"}, "on_error: 'warn' is not a mapping"),
        ({"results": True}, "trusted, safe, never"),
        ({"allow_types": ["Point"]}, "allow_types: 'Point'"),
        ({"allow_types": ["a..b"]}, "allow_types"),
        ({"allow_types": 3}, "allow_types: 3"),
        ({"downloads": ["http://packages.example.org/"]}, "downloads: write true, false, or the beginning"),
        ({"downloads": "https://packages.example.org/?key=hunter2"}, "'https://packages.example.org/'"),
        ({"downloads": 3}, "downloads: 3 is not a list of texts"),
        ({"workdir": "relative/x"}, "workdir: 'relative/x' is not an absolute path"),
    ],
)
def test_a_wrong_value_is_refused(fields, says):
    """The error names the field, however the value was given."""
    for make in (
        lambda: LaunchConf(**fields),
        lambda: LaunchConf().replaced(**fields),
        lambda: LaunchConf.from_mapping(fields),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert says in str(caught.value)


def test_values_of_variables_are_in_no_message():
    """They may be secrets."""
    secret = "hunter2"
    assert secret not in repr(LaunchConf(env={"TOKEN": secret}))
    with pytest.raises(ConfigError) as caught:
        LaunchConf(env={"TOKEN": secret + "\0"})
    assert secret not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        LaunchConf(downloads=f"https://me:{secret}@packages.example.org/")
    assert secret not in str(caught.value)


def test_an_allowed_value_is_normalised():
    """Single values become tuples, paths text, numbers in variables text, types names."""
    conf = LaunchConf(
        hosts="gpu1/2",
        setup="module load cuda",
        env={"A": 1, "B": 'x "y"\nz'},
        outputs="*.pt",
        allow_types=[pathlib.Path, "a.b:C.D"],
        retries={"*": 1, "killed": 3},
        hosts_file=pathlib.Path("hosts.yaml"),
        workdir="~/scratch",
    )
    assert conf.hosts == ("gpu1/2",)
    assert conf.setup == ("module load cuda",)
    assert conf.env == {"A": "1", "B": 'x "y"\nz'}
    assert conf.outputs == ("*.pt",)
    assert conf.allow_types == ("pathlib.Path", "a.b:C.D")
    assert conf.retries_by_kind == {"*": 1, "killed": 3}
    assert conf.hosts_file == "hosts.yaml"
    assert LaunchConf(hosts=[{"name": "a", "slots": 2}]).hosts == ({"name": "a", "slots": 2},)
    assert LaunchConf(outputs=False).outputs is False
    assert LaunchConf(downloads="https://packages.example.org").downloads == ("https://packages.example.org",)
    assert LaunchConf(downloads=[]).downloads is False
