"""If jobs need a module that exists here, the error says why it was not sent, and which line includes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import launcher
from launcher.code.files.missing_modules import explained, explained_in_job, why_it_stayed
from launcher.code.files.snapshot import Snapshot, take
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from tests.hydra import apps
from tests.hydra.hosts import hosts_file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """A project with an ignored module, and a module outside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = apps.write(
        tmp_path / "project",
        {
            "src/pkg/__init__.py": "",
            "src/pkg/_version.py": "version = 1",
            "src/pkg/fast.abi3.so": "",
            "src/[odd]/mod.py": "",
            ".gitignore": "_version.py\n*.so\nmod.py\n",
        },
    )
    apps.write(tmp_path, {"elsewhere/common/__init__.py": ""})
    monkeypatch.syspath_prepend(str(folder / "src"))
    monkeypatch.syspath_prepend(str(folder / "src" / "[odd]"))
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    return take(folder / "src", root=folder)


@pytest.mark.parametrize(
    ("message", "name", "line"),
    [
        ("No module named 'pkg._version'", "pkg._version", "!src/pkg/_version.py"),
        ("cannot import name '_version' from 'pkg' (/x/pkg/__init__.py)", "pkg._version", "!src/pkg/_version.py"),
        ("No module named 'pkg.fast'", "pkg.fast", "!src/pkg/fast.abi3.so"),
        ("No module named 'mod'", "mod", r"!src/\[odd]/mod.py"),
    ],
)
def test_an_ignored_module_names_the_line_that_brings_it(project: Snapshot, message: str, name: str, line: str) -> None:
    """The line is right: with it, the file is sent."""
    told = explained({"message": message}, project)
    assert told.startswith(f"here {name} is {project.root}/src/")
    assert f"add the line `{line}` at the end of {project.root}/.launcherignore" in told
    (project.root / ".launcherignore").write_text(f"*.so\n{line}\n")
    again = take(project.root / "src", root=project.root)
    assert explained({"message": message}, again) == ""
    assert len(again.files) == len(project.files) + 2


def test_a_module_outside_says_so(project: Snapshot) -> None:
    """The message suggests to move it into the project, or to install it as a package."""
    told = explained({"message": "No module named 'common'"}, project)
    assert f"it is outside the project ({project.root})" in told
    assert why_it_stayed("/nowhere/x.py", project).startswith("it is outside")


@pytest.mark.parametrize(
    "message",
    [
        "No module named 'no_such_module'",
        "No module named 'json'",
        "No module named 'pkg'",
        "No module named '../../etc/passwd'",
        "No module named '" + "a" * 10_000 + "'",
        "something else",
        "",
    ],
)
def test_other_modules_have_no_explanation(project: Snapshot, message: str) -> None:
    """There is no explanation for a module that is missing here, installed or sent, or for a text that is not a
    module's name.
    """
    assert explained({"message": message}, project) == ""


@pytest.mark.parametrize("is_cause", [False, True], ids=["itself", "cause"])
def test_an_import_error_in_a_job_is_explained(project: Snapshot, is_cause: bool) -> None:
    """This also holds if the import error caused another error, as in Hydra's `instantiate`.

    Other errors with such a text have no explanation.
    """
    message = "No module named 'pkg._version'"
    found = {"type": "ModuleNotFoundError", "message": message, "causes": []}
    outer = {"type": "hydra.errors.InstantiationException", "message": "Error locating target", "causes": [found]}
    assert explained_in_job(outer if is_cause else found, project, "") == explained(found, project) != ""
    assert explained_in_job({"type": "ValueError", "message": message, "causes": []}, project, "send it; or ") == ""
    assert explained_in_job({"type": "ImportError", "message": "odd", "causes": []}, project, "send it; or ") == ""


def test_a_package_that_only_this_machine_has_is_explained(project: Snapshot) -> None:
    """It is not sent. The host needs the package, or another Python."""
    error = {"type": "ModuleNotFoundError", "message": "No module named 'pytest'"}
    for told in explained_in_job(error, project, "send it; or "), explained(error, project, "send it; or "):
        assert (
            f"here pytest is {pytest.__file__}, and installed packages are not sent: send it; or install it there"
            in told
        )


def test_a_package_that_no_machine_has_is_explained(project: Snapshot) -> None:
    """The application is imported on hosts alone then. What is sent, and an odd name, are not called missing."""
    told = explained({"message": "No module named 'no_such_module'"}, project, "send it; or ")
    assert told.startswith("no_such_module is not installed here either: send it; or install it there")
    for name in ("pkg", "../../etc/passwd"):
        assert explained({"message": f"No module named '{name}'"}, project, "send it; or ") == ""


def test_a_name_that_a_module_lacks_is_no_missing_package(project: Snapshot) -> None:
    """So says Python of a `_target_` with a typo: no package would bring it."""
    message = "No module named 'models.Adma'; 'models' is not a package"
    assert explained({"message": message}, project, "send it; or ") == ""


@pytest.mark.slow
def test_a_job_that_imports_late_says_why_the_module_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_server: DemoServer
) -> None:
    """The job's error names the line that brings it, and with that line the job completes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    app = apps.write(
        tmp_path / "project",
        {
            "late_app.py": "def main(cfg):\n    from made import value\n    return value\n",
            "made.py": "value = 1\n",
            ".gitignore": "made.py\n",
            "pyproject.toml": "",
        },
    )
    monkeypatch.chdir(app)
    monkeypatch.syspath_prepend(str(app))
    host = HostSpec(demo_server.alias, demo_server.alias, ssh_config=str(demo_server.ssh_config))
    import late_app

    failed = launcher.run(late_app.main, {}, host=host)
    assert failed.error is not None
    assert failed.error.type == "ModuleNotFoundError"
    assert failed.error.message.startswith("No module named 'made'\n    here made is ")
    assert f"add the line `!made.py` at the end of {app.resolve()}/.launcherignore" in failed.error.message
    (app / ".launcherignore").write_text("!made.py\n")
    assert launcher.run(late_app.main, {}, host=host).return_value == 1
    sys.modules.pop("late_app")


@pytest.mark.slow
def test_a_run_warns_before_its_jobs_fail(tmp_path: Path) -> None:
    """This replaces the advice to install it there. With the line, the job runs."""
    app = apps.write(
        tmp_path / "project",
        {
            "my_app.py": "import made\ndef main(cfg): return made.value\n",
            "made.py": "value = 1\n",
            ".gitignore": "made.py\n",
        },
    )
    apps.run("git", "init", "-q", cwd=app)
    with DemoServer() as server:
        hosts = hosts_file(tmp_path / "hosts.yaml", server.alias, server.ssh_config)
        done = apps.launcher("run", "my_app.py", "--hosts", hosts, cwd=app, check=False)
        assert done.returncode == 1
        assert f"add the line `!made.py` at the end of {app.resolve()}/.launcherignore" in done.stderr
        assert "install it there" not in done.stderr
        (app / ".launcherignore").write_text("!made.py\n")
        apps.launcher("run", "my_app.py", "--hosts", hosts, cwd=app)
