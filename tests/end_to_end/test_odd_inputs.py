"""Every option and argument with absurd values, in every interface. They are refused by name, or taken literally.

Every exception is one of ours, no message is longer than a screen, and nothing is begun.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import launcher
from launcher.cli import main as cli
from launcher.errors import LauncherError, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import load_hosts_file, parse_host
from launcher.options import LaunchConf

_HUGE = 10**5000 - 1
_ODD: list[Any] = [
    *(
        None,
        "",
        " ",
        "\t\n",
        [],
        {},
        (),
        [[]],
        [None],
        [""],
        {"": ""},
        {1: 2},
        {None: None},
        {"a": None},
        set(),
        object(),
        b"x",
    ),
    *(True, False, -1, 0, 1, 1.5, -0.5, math.nan, math.inf, -math.inf, _HUGE, -_HUGE, 10.0**308, 1 << 63),
    *(
        "٣",
        "½",
        "0x10",
        "010",
        "1_000",
        "1:30",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "+1",
        "--",
        "~",
        "null",
        "true",
        "a\0b",
        "a\nb",
    ),
    *(
        "9" * 5000,
        "a" * 5000,
        "\ud800",
        "${oc.env:HOME}",
        "../..",
        "/",
        ["a", 1],
        [True],
        {"name": "gpu1"},
        [{}],
        [b"x"],
    ),
]


def _id(value: Any) -> str:
    """Make an id. Python does not print numbers with too many digits."""
    try:
        return ascii(value)[:30]
    except ValueError:
        return "huge"


#: Of each option, what of the above it takes; everything else is refused.
_TAKEN: dict[str, list[Any]] = {
    "max_failures": [None, 1],
    "retries": [{}, 0, 1],
    "timeout": [None, 1, 1.5, "010"],
    "lease": [None, 1, 1.5, "010"],
    "grace": [0, 1, 1.5, "010"],
    "hook_timeout": [1, 1.5, "010"],
    "host_loss_timeout": [1, 1.5, "010"],
    "max_code_size": [1, "010"],
    "max_output_bytes": [1, "010"],
    "sync_outputs": [None, 1, 1.5, "010"],
    "live": [True, False],
    "fail_fast": [True, False],
    "accept_new_host_keys": [True, False],
    "code": [],
    "isolation": [],
    "on_host_loss": [],
    "results": [],
    "workdir": [None, "/"],
}


def _is_one_of(value: Any, taken: list[Any]) -> bool:
    return any(type(value) is type(one) and value == one for one in taken)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(LaunchConf)])
def test_an_absurd_option_is_refused_or_taken_literally(name: str) -> None:
    """A message begins with the option's name. Numbers, flags and choices do not accept similar values."""
    for value in _ODD:
        message = _refusal(lambda value=value: LaunchConf(**{name: value}))
        if message:
            assert message.startswith(name), (_id(value), message[:200])
            assert len(message) < 500
        if name in _TAKEN:
            assert bool(message) != _is_one_of(value, _TAKEN[name]), (_id(value), message[:200])


def _refusal(make: Callable[[], Any]) -> str:
    """Return why it is refused; empty if it is accepted."""
    try:
        make()
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", one) for one in ("٣", "9" * 5000, _HUGE, math.inf, math.nan, True, "1:30", [1])),
        *(("max_code_size", one) for one in ("٣", "9" * 400 + "M", _HUGE, 1 << 63, "1e9", 1.5, True)),
        *(("retries", one) for one in (_HUGE, -1, 1.0, True, "1", {"killed": _HUGE}, {"killed": True}, {"no": 1})),
        *(("max_failures", one) for one in (0, _HUGE, 1.0, False)),
        *(("setup", one) for one in ([""], ["a\0b"], {"a": 1}, 3, None)),
        *(
            ("env", one)
            for one in ([], "A=1", {"A": None}, {"A": True}, {"A B": "1"}, {"": "1"}, {"٣": "1"}, {"A": [1]})
        ),
        *(("outputs", one) for one in (None, "", ["../x"], ["/x"], {"a": 1}, 0)),
        *(("hosts", one) for one in (3, [None], [""], [" "], [3], [b"gpu1"])),
        *(("on_error", one) for one in (None, [], {"a": "nope"}, {"a": None})),
        *(("allow_types", one) for one in (3, [""], ["a b"], [None])),
    ],
    ids=_id,
)
def test_an_option_is_refused_by_its_name(name: str, value: Any) -> None:
    """The message is one line of limited length."""
    with pytest.raises(UsageError, match=rf"^{name}") as refused:
        LaunchConf(**{name: value})
    assert len(str(refused.value)) < 500


# -- hosts ---------------------------------------------------------------------------------------------------------


def test_an_absurd_host_name_is_accepted_or_refused() -> None:
    """Any text is accepted as a host, or refused as one."""
    for value in _ODD:
        if isinstance(value, str):
            message = _refusal(lambda value=value: parse_host(value))
            assert message.startswith("host ") or value.strip().startswith(parse_host(value).address)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu1: {port: 022}", "line 1: YAML reads 022 as the number 18"),
        ("gpu1: {port: 22:22}", "YAML reads 22:22 as the number 1342"),
        ("gpu1: {port: 0x16}", "YAML reads 0x16 as the number 22"),
        ("gpu1: {slots: 0b11}", "YAML reads 0b11 as the number 3"),
        ("gpu1: {slots: 1_0}", "YAML reads 1_0 as the number 10"),
        ("gpu1: {slots: +2}", "YAML reads"),
        ("gpu1: {env: {VERSION: 1.10}}", "YAML reads 1.10 as the number 1.1; write that, or put it in quotes"),
        ("gpu1: {env: {ID: 007}}", "YAML reads 007 as the number 7"),
        ("gpu1: {env: {AT: 1:30.5}}", "YAML reads 1:30.5 as the number 90.5"),
        ("gpu1: {env: {X: .inf}}", "YAML reads .inf as the number inf"),
        ("gpu1: {env: {X: yes}}", "the value of X is not text"),
        ("gpu1: {env: {X: 2024-01-01}}", "the value of X is not text"),
        ("gpu1: {slots: true}", "slots True is neither a number"),
        ("gpu1: {port: -1}", "port -1 is not a number from 1 to 65535"),
        ("gpu1: {port: 9" + "9" * 5000 + "}", "is not a number that can be used"),
        ("gpu1: {slots: 2.0}", "slots 2.0 is neither"),
        ("gpu1: []", "is not a mapping of fields"),
        ("'gpu1 ': {}", "is not a host name"),
        ("'': {}", "'' is not a host name"),
        ("[gpu1, gpu1]", "is named twice"),
        ("[gpu1, {name: other, address: GPU1}]", "is named twice"),
        ("gpu1: {}\ngpu1: {}", "is given twice"),
        ("3", "no hosts in it"),
        ("hosts: ''", "no hosts in it"),
        ("[[gpu1]]", "is neither a host's name nor a mapping"),
        ("gpu1: {setup: {a: 1}}", "is not a shell line"),
        ("gpu1: {gpus: -1}", "is neither a count nor a list"),
        ("gpu1: {gpus: [true]}", "is neither a count nor a list"),
        ("gpu1: {python: ''}", "is not a line of text"),
        ("gpu1: {python: 3.11}", "3.11 is not a line of text; put it in quotes"),
        ("gpu1: {workdir: here}", "is neither absolute"),
    ],
    ids=_id,
)
def test_an_absurd_value_in_a_hosts_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """A number counts as it is written. A text that YAML would read as another number is refused."""
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_hosts_file(path)
    assert says in str(refused.value)


def test_numbers_as_they_are_written(tmp_path: Path) -> None:
    """Ordinary numbers have their usual meaning."""
    path = tmp_path / "hosts.yaml"
    path.write_text("gpu1: {port: 22, slots: 3, env: {A: 1.5, B: '007', C: 0, D: -1}}")
    (spec,) = load_hosts_file(path)
    assert (spec.port, spec.slots, dict(spec.env)) == (22, 3, {"A": "1.5", "B": "007", "C": "0", "D": "-1"})


# -- Python ----------------------------------------------------------------------------------------------------------


def _task(cfg: Any) -> None:
    raise AssertionError("it ran")


@pytest.mark.parametrize(
    ("says", "given"),
    [
        ("hydra.callbacks: 'x' is not a mapping", {"config": {"hydra": {"callbacks": "x"}}}),
        ("hydra.callbacks: ['x'] is not a mapping", {"config": {"hydra": {"callbacks": ["x"]}}}),
        ("hydra.callbacks: 'x' is not a mapping", {"config": OmegaConf.create({"hydra": {"callbacks": "x"}})}),
        ("hydra.callbacks.a: it has no _target_", {"config": {"hydra": {"callbacks": {"a": "x"}}}}),
        ("the config's hydra node is 'x', not a mapping", {"config": {"hydra": "x"}}),
        ("the config is a str", {"config": "lr=1"}),
        ("the config is a str", {"config": ""}),
        ("the config is a bytes", {"config": b"lr: 1"}),
        ("the config is a list", {"config": [1]}),
        ("the config is", {"config": 3}),
        ("host ''", {"host": ""}),
        ("host 3", {"host": 3}),
        ("host ['a', 'b']", {"host": ["a", "b"]}),
        ("is not a host name", {"host": {}}),
        ("folder: '' is not the path of a folder", {"folder": ""}),
        ("folder: ' ' is not the path of a folder", {"folder": " "}),
        ("folder: 3 is not the path of a folder", {"folder": 3}),
        ("folder: 'a\\x00b' is not the path of a folder", {"folder": "a\0b"}),
        ("overrides: 'x=1' is not a list of texts", {"overrides": "x=1"}),
        ("overrides: None is not a list of texts", {"overrides": None}),
        ("overrides: [1] is not a list of texts", {"overrides": [1]}),
        ("options: {'timeout': 3} is not a LaunchConf", {"options": {"timeout": 3}}),
        ("callbacks: None is not a list", {"callbacks": None}),
        ("'a' is not a callback", {"callbacks": "a"}),
        ("is not a callback", {"callbacks": [launcher.Callback]}),
        ("retries: <a number of", {"retries": _HUGE}),
        ("unknown option 'retry'", {"retry": 1}),
        ("hosts: the list is empty", {"hosts": []}),
        ("hosts: 3 is not a list of hosts", {"hosts": 3}),
    ],
    ids=_id,
)
def test_run_refuses_absurd_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, given: dict[str, Any]
) -> None:
    """It is refused by name, and no folder is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        launcher.run(_task, given.pop("config", {}), **given)
    assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("says", "given"),
    [
        ("hosts: the list is empty", {"hosts": []}),
        ("hosts: the list is empty", {"hosts": ()}),
        ("hosts: the list is empty", {"hosts": iter(())}),
        ("hosts: 3 is not a list of hosts", {"hosts": 3}),
        ("hosts: b'gpu1' is not a list of hosts", {"hosts": b"gpu1"}),
        ("is named twice", {"hosts": ["gpu1", "gpu1"]}),
        ("is named twice", {"hosts": ["gpu1", "GPU1:22", " gpu1 "]}),
        ("is named twice", {"hosts": [HostSpec("a", "gpu1"), HostSpec("b", "gpu1")]}),
        ("host ' '", {"hosts": [" "]}),
        ("the config is a str", {"configs": ["x=1"]}),
        ("is not a list of configs", {"configs": "x"}),
        ("is not a list of configs", {"configs": None}),
        ("folder: '' is not the path of a folder", {"folder": ""}),
        ("overrides: 1 given for 2 configs", {"configs": [{}, {}], "overrides": [["a=1"]]}),
        ("overrides: 'a=1' is not a list", {"overrides": "a=1"}),
        ("overrides: 'a=1' is not a list of texts", {"overrides": ["a=1"]}),
        ("overrides: [1] is not a list of texts", {"overrides": [[1]]}),
    ],
    ids=_id,
)
def test_multirun_and_session_refuse_absurd_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, given: dict[str, Any]
) -> None:
    """Both refuse the same values for arguments that both have."""
    monkeypatch.chdir(tmp_path)
    again = {
        key: iter(()) if key == "hosts" and not isinstance(value, (int, bytes, list, tuple)) else value
        for key, value in given.items()
    }
    configs = given.pop("configs", [{}])
    with pytest.raises(UsageError) as refused:
        launcher.multirun(_task, configs, **given)
    assert says in str(refused.value)
    if "hosts" in again:
        with pytest.raises(UsageError) as refused:
            launcher.Session.open(hosts=again["hosts"])
        assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        *(
            (f"--{name}", [f"--{name}", ""])
            for name in ("folder", "config-dir", "config-name", "hosts", "python", "workdir")
        ),
        *((f"--{name}", [f"--{name}", " "]) for name in ("folder", "config-dir", "output", "setup")),
        ("--retries", ["--retries", "9" * 5000]),
        ("--retries", ["--retries", "٣"]),
        ("--retries", ["--retries", "-1"]),
        ("--retries", ["--retries", "killed=" + "9" * 5000]),
        ("--max-failures", ["--max-failures", "9" * 5000]),
        ("--max-failures", ["--max-failures", "0"]),
        ("--timeout", ["--timeout", "٣"]),
        ("--timeout", ["--timeout", "nan"]),
        ("--max-code-size", ["--max-code-size", "9" * 400 + "G"]),
        ("--max-output-bytes", ["--max-output-bytes", "0"]),
        ("--host", ["--host", ""]),
        ("named twice", ["--host", "gpu1", "--host", "gpu1/2"]),
        ("--env", ["--env", ""]),
        ("--env", ["--env", "=1"]),
        ("--env", ["--env", "A B=1"]),
        ("--on-error", ["--on-error", "x"]),
        ("--callback", ["--callback", ""]),
        ("--lease", ["--lease", "0"]),
    ],
    ids=_id,
)
def test_the_command_line_refuses_absurd_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    says: str,
    arguments: list[str],
) -> None:
    """The exit code is 2. The message names the option, is shorter than a screen, and has no traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_inputs_app", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "odd_inputs_app.py").write_text("def main(cfg):\n    raise AssertionError('it ran')\n")
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "odd_inputs_app.py", *arguments])
    told = capsys.readouterr().err
    assert left.value.code == 2, told[-600:]
    assert says in told
    assert "Traceback" not in told
    assert not (tmp_path / "outputs").exists()


def test_errors_are_ours() -> None:
    """A script catches the same exceptions as the tests above."""
    assert issubclass(UsageError, LauncherError)
