"""An application and its callbacks see the same through this launcher as in plain Hydra, fact by fact.

The same application runs under Hydra's basic launcher and under ours, and everything that it recorded is compared.
`_named` leaves out what differs by design, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hydra import apps, probe_app
from tests.requirements import need_python

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


def _app(folder: Path, version_base: str = "None") -> Path:
    files = {name: text.replace("VERSION", version_base) for name, text in probe_app.FILES.items()}
    return apps.write(folder, files)


def _told(app: Path, sweep: str, nums: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Return the facts of the controller and of each job. Folders and times are replaced by names."""
    places = [".", *(f"{sweep}/{num}" for num in nums)]
    return {place: [_named(fact, app) for fact in probe_app.facts(app / place)] for place in places}


def _named(value: Any, app: Path) -> Any:
    if isinstance(value, dict):
        # What a callback remembers of a job stays in that job's process; Hydra's basic launcher has but one process.
        named = {key: _named(one, app) for key, one in value.items() if key != "seen"}
        if "working_dir" in named and not named["working_dir"].startswith(("/", "<app>")):
            # With hydra.job.chdir Hydra leaves it relative, to a folder that the process has left.
            named["working_dir"] = f"<app>/{named['working_dir']}"
        return named
    if isinstance(value, list):
        return [_named(one, app) for one in value]
    if isinstance(value, str):
        return _STAMP.sub("<stamp>", value.replace(str(app), "<app>"))
    return value


def _written(app: Path, sweep: str, nums: Sequence[int], name: str = "my_app") -> dict[str, Any]:
    """Return what Hydra writes beside a job's own files: its log and its YAML, without what differs by design."""
    written: dict[str, Any] = {}
    for num in nums:
        folder = app / sweep / str(num)
        log = (folder / f"{name}.log").read_text()
        # On a host the script is the module that it can be imported as.
        written[f"{num}/log"] = [_TIME.sub("", line.replace("__main__", "my_app")) for line in log.splitlines()]
        for path in sorted(folder.glob(".hydra/*.yaml")):
            content = yaml.safe_load(path.read_text())
            if path.name == "hydra.yaml":
                hydra = content["hydra"]
                for section, key in (("job", "id"), ("runtime", "output_dir"), ("runtime", "cwd")):
                    del hydra[section][key]
                del hydra["launcher"], hydra["runtime"]["choices"]["hydra/launcher"]
                hydra["overrides"]["hydra"] = [one for one in hydra["overrides"]["hydra"] if "launcher" not in one]
                hydra["runtime"]["config_sources"] = _named(hydra["runtime"]["config_sources"], app)
            written[f"{num}/{path.name}"] = content
    return written


def _compare(hydras: dict[str, Any], ours: dict[str, Any]) -> None:
    assert list(hydras) == list(ours)
    for place, theirs in hydras.items():
        assert [fact["hook"] for fact in ours[place]] == [fact["hook"] for fact in theirs], place
        for fact, expected in zip(ours[place], theirs, strict=True):
            assert fact == expected, (place, fact["hook"])


_SWEEP = ["x=1,2", "db=mysql,sqlite", "hydra.sweep.dir=sweep"]


@pytest.mark.slow
@pytest.mark.parametrize("version_base", ["None", pytest.param('"1.1"', marks=pytest.mark.hydra_suite)])
def test_a_sweep_through_the_plugin_is_like_hydras(tmp_path: Path, version_base: str) -> None:
    """Hooks, their order and arguments, configs, HydraConfig, resolvers, folders and environment are the same as in
    plain Hydra.
    """
    theirs = _app(tmp_path / "theirs", version_base)
    ours = _app(tmp_path / "ours", version_base)
    apps.python("my_app.py", "-m", "hydra/launcher=basic", *_SWEEP, cwd=theirs)
    apps.python("my_app.py", "-m", "hydra/launcher=remote", *_SWEEP, cwd=ours)
    _compare(_told(theirs, "sweep", range(4)), _told(ours, "sweep", range(4)))
    assert _written(ours, "sweep", range(4)) == _written(theirs, "sweep", range(4))


@pytest.mark.pythons
@pytest.mark.hydra_suite
@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_a_sweep_under_another_python_is_like_hydras(tmp_path: Path, version: str) -> None:
    """The same holds in a job environment with another Python and without Hydra."""
    theirs, ours = _app(tmp_path / "theirs"), _app(tmp_path / "ours")
    python = f"hydra.launcher.python={need_python(version)}"
    apps.python("my_app.py", "-m", "hydra/launcher=basic", *_SWEEP, cwd=theirs)
    apps.python("my_app.py", "-m", "hydra/launcher=remote", python, *_SWEEP, cwd=ours)
    _compare(_told(theirs, "sweep", range(4)), _told(ours, "sweep", range(4)))
    assert _written(ours, "sweep", range(4)) == _written(theirs, "sweep", range(4))


_VARIANTS = {
    "logging": [
        "hydra.verbose=[my_app,__main__]",
        "hydra.job_logging.formatters.simple.format='%(asctime)s %(name)s: %(message)s'",
    ],
    "name and folder": ["hydra.job.name=renamed", "hydra.job.chdir=true", "hydra.output_subdir=null"],
    "subdir": ["hydra.sweep.subdir='${hydra:job.num}'", "hydra.job.config.override_dirname.kv_sep=_", "+new.key=[1,2]"],
}


@pytest.mark.hydra_suite
@pytest.mark.parametrize("variant", _VARIANTS)
def test_hydras_own_settings_have_their_effect(tmp_path: Path, variant: str) -> None:
    """Settings of `hydra.*` for logging, names and folders have the same effect on the host as in Hydra."""
    theirs, ours = _app(tmp_path / "theirs"), _app(tmp_path / "ours")
    overrides = ["x=1,2", "hydra.sweep.dir=sweep", *_VARIANTS[variant]]
    apps.python("my_app.py", "-m", "hydra/launcher=basic", *overrides, cwd=theirs)
    apps.python("my_app.py", "-m", "hydra/launcher=remote", *overrides, cwd=ours)
    _compare(_told(theirs, "sweep", range(2)), _told(ours, "sweep", range(2)))
    name = "renamed" if variant == "name and folder" else "my_app"
    assert _written(ours, "sweep", range(2), name) == _written(theirs, "sweep", range(2), name)


@pytest.mark.hydra_suite
def test_a_sweep_through_the_command_line_is_like_hydras(tmp_path: Path) -> None:
    """The same holds with `launcher multirun`."""
    theirs, ours = _app(tmp_path / "theirs"), _app(tmp_path / "ours")
    apps.python("my_app.py", "-m", *_SWEEP, cwd=theirs)
    apps.launcher("multirun", "my_app.py", *_SWEEP, cwd=ours)
    _compare(_told(theirs, "sweep", range(4)), _told(ours, "sweep", range(4)))


@pytest.mark.slow
def test_a_run_through_the_command_line_is_like_hydras(tmp_path: Path) -> None:
    """In RUN mode with `launcher run`, edits by on_run_start reach the job, and num and id are missing, as in plain
    Hydra.
    """
    theirs, ours = _app(tmp_path / "theirs"), _app(tmp_path / "ours")
    overrides = ["x=3", "hydra.run.dir=out", "hydra.job.chdir=true"]
    apps.python("my_app.py", *overrides, cwd=theirs)
    apps.launcher("run", "my_app.py", *overrides, cwd=ours)
    _compare(_told(theirs, ".", []) | _told(theirs, "out", []), _told(ours, ".", []) | _told(ours, "out", []))
    assert probe_app.facts(ours / "out") != []


# -- on hosts that have the code sent to them ------------------------------------------------------------------------

_THERE = tuple(re.compile(rf"/[^\s'\"]*/runs/[^\s'\"]+?/{name}\b") for name in ("code", "outputs"))


def _as_here(value: Any) -> Any:
    """Replace a host's folders by the local ones: the code's by the app's, the outputs' by the sweep's."""
    if isinstance(value, dict):
        return {key: _as_here(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_here(one) for one in value]
    if isinstance(value, str):
        return _THERE[1].sub("<app>/sweep", _THERE[0].sub("<app>", value))
    return value


def _on_host(tmp_path: Path, hosts: Path, *more: str) -> None:
    theirs, ours = _app(tmp_path / "theirs"), _app(tmp_path / "ours")
    apps.python("my_app.py", "-m", "hydra/launcher=basic", *_SWEEP, cwd=theirs)
    there = f"hydra.launcher.hosts_file={hosts}"
    apps.python("my_app.py", "-m", "hydra/launcher=remote", there, *more, *_SWEEP, cwd=ours)
    expected, told = _told(theirs, "sweep", range(4)), _told(ours, "sweep", range(4))
    hosts_facts = {place: facts for place, facts in told.items() if place != "."}
    assert "<app>" not in str(hosts_facts), "the host shares no path with this machine"
    _compare(expected, _as_here(told))


@pytest.mark.hydra_suite
def test_a_sweep_on_a_host_is_like_hydras(tmp_path: Path, demo_hosts: Path) -> None:
    """Over SSH, with the code sent, everything is the same except that folders are the host's."""
    _on_host(tmp_path, demo_hosts)


@pytest.mark.openssh
def test_a_sweep_on_a_host_without_a_shared_disk_is_like_hydras(tmp_path: Path, openssh_hosts: Path) -> None:
    """The host has only sshd and a Python. Hydra comes in the bundle."""
    _on_host(tmp_path, openssh_hosts)


_BOTH = [
    f"+hydra.callbacks.{name}._target_={module}.callbacks.{kind}"
    for module in ("hydra.experimental", "remote_agent")
    for name, kind in ((f"pickle_{module[0]}", "PickleJobInfoCallback"), (f"log_{module[0]}", "LogJobReturnCallback"))
]


def _pickles(tmp_path: Path, *more: str) -> None:
    app = _app(tmp_path / "app")
    # Theirs pickles after ours at the start, and before it at the end: each is the last to write one of the files.
    apps.python("my_app.py", "-m", "hydra/launcher=remote", *more, *_BOTH, "x=1,13", *_SWEEP[2:], cwd=app, check=False)
    code = (
        "import pickle, sys, my_app\n"
        "for num in (0, 1):\n"
        "    config, returned = (pickle.load(open(f'sweep/{num}/.hydra/{name}.pickle', 'rb')) for name in ('config', 'job_return'))\n"
        "    print(config.hydra.job.num, config.hydra.job.name, returned.status.name, returned.cfg.x, type(returned).__mro__[-2])"
    )
    told = apps.python("-c", code, cwd=app).stdout.splitlines()
    assert told == [
        "0 my_app COMPLETED 1 <class 'hydra.core.utils.JobReturn'>",
        "1 my_app FAILED 13 <class 'hydra.core.utils.JobReturn'>",
    ]
    log = (app / "sweep" / "0" / "my_app.log").read_text()
    assert log.count("Saving job_return in ") == 2
    assert log.count("Succeeded with return value: {'x': 1") == 2
    assert (app / "sweep" / "1" / "my_app.log").read_text().count("ValueError: thirteen") >= 2


@pytest.mark.hydra_suite
def test_pickles_of_hydras_callbacks_and_of_ours_load_here(tmp_path: Path) -> None:
    """Both callbacks work side by side, with their log lines, and their files can be loaded."""
    _pickles(tmp_path)


@pytest.mark.openssh
def test_pickles_made_on_a_host_that_shares_no_disk_load_here(tmp_path: Path, openssh_hosts: Path) -> None:
    """The same holds if Hydra and its plugins' classes are not installed on the host."""
    _pickles(tmp_path, f"hydra.launcher.hosts_file={openssh_hosts}")
