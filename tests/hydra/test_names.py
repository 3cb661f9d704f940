"""A project with its own `launcher` or `remote_agent` is refused by name if one process would need both modules."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.hydra import apps

_APP = """
    import json

    import hydra
    from hydra.experimental.callback import Callback

    {}


    class Tells(Callback):
        def on_multirun_end(self, config, job_returns=None, **kwargs):
            print("ENDED", job_returns)


    @hydra.main(version_base=None, config_path=None)
    def main(cfg):
        print("RAN")


    if __name__ == "__main__":
        main()
    """
_ENTRY = "from hydra_plugins.hydra_remote_launcher._command import main; main()"
_CALLBACK = "+hydra.callbacks.tells._target_=__main__.Tells"


@pytest.fixture(params=["launcher/__init__.py", "launcher.py", "remote_agent/__init__.py"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """An app that imports its own module of that name, and the module's file."""
    name = request.param.partition("/")[0].removesuffix(".py")
    app = apps.write(tmp_path, {"my_app.py": _APP.format(f"from {name} import go"), request.param: "def go(): ...\n"})
    return app, app / request.param


def _is_told(text: str, file: Path) -> bool:
    return f"{file} has the same name" in text and "Rename it, or move it into a package" in text


@pytest.mark.slow
def test_the_plugin_says_which_module_hides_ours(project: tuple[Path, Path]) -> None:
    """Nothing runs, and the end hook fires once without JobReturns. Without the plugin, the app works as before."""
    app, file = project
    plain = apps.python("my_app.py", "-m", cwd=app)
    assert "RAN" in plain.stdout
    done = apps.python(
        "my_app.py", "-m", "hydra/launcher=remote", _CALLBACK, "hydra.sweep.dir=it", cwd=app, check=False
    )
    assert done.returncode == 1
    assert _is_told(done.stderr, file)
    assert "Traceback" not in done.stderr
    assert done.stdout.count("ENDED []") == 1
    assert "RAN" not in done.stdout
    assert not (app / "it").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_app.py", "my_app"])
def test_the_command_says_which_module_hides_ours(project: tuple[Path, Path], name: str) -> None:
    """`launcher run` says so for a file and for a module of the working folder."""
    app, file = project
    done = apps.python("-c", f"import sys; sys.path.pop(0); {_ENTRY}", "run", name, cwd=app, check=False)
    assert done.returncode == 2
    assert _is_told(done.stderr, file)


def test_the_command_works_without_its_own_modules(project: tuple[Path, Path]) -> None:
    """If PYTHONPATH puts the project first, the command cannot import its own modules. That is reported, too."""
    app, file = project
    done = apps.python(
        *("-c", _ENTRY, "--version"), cwd=app, check=False, env={"PYTHONPATH": f"{app}:{os.environ['PYTHONPATH']}"}
    )
    assert done.returncode == 2
    assert _is_told(done.stderr, file)
    assert "Traceback" not in done.stderr


def test_importing_launcher_beside_a_remote_agent_is_refused(tmp_path: Path) -> None:
    """A script with a `remote_agent` beside it imports `launcher`."""
    app = apps.write(tmp_path, {"remote_agent.py": "", "script.py": "import launcher\nlauncher.run(print, {})\n"})
    done = apps.python("script.py", cwd=app, check=False)
    assert _is_told(done.stderr, app / "remote_agent.py")


@pytest.mark.slow
def test_a_folder_without_modules_is_harmless(tmp_path: Path) -> None:
    """A folder `launcher/` with only shell scripts comes after every package."""
    app = apps.write(tmp_path, {"launcher/start.sh": "", "my_app.py": "def main(cfg): return 1\n"})
    apps.launcher("run", "my_app.py", cwd=app)


@pytest.mark.slow
def test_on_a_host_the_application_gets_its_own_module(tmp_path: Path, demo_hosts: Path) -> None:
    """Here our `launcher` comes first on the path.

    On the host ours is in the bundle, and applications do not need it.
    """
    script = (
        "import json\nimport launcher\n"
        "def task(cfg):\n    import launcher\n    return [launcher.go(), launcher.__file__]\n"
        "if __name__ == '__main__':\n    import sys\n"
        "    print(json.dumps(launcher.run(task, {}, options=launcher.LaunchConf(hosts_file=sys.argv[1])).return_value))\n"
    )
    app = apps.write(tmp_path, {"launcher/__init__.py": "def go(): return 3\n", "src/script.py": script})
    apps.run("git", "init", "-q", cwd=app)
    path = {"PYTHONPATH": f"{os.environ['PYTHONPATH']}:{app}"}
    done = apps.python("src/script.py", demo_hosts, cwd=app, env=path)
    went, file = json.loads(done.stdout)
    assert went == 3
    assert file.endswith("/code/launcher/__init__.py")
    apps.write(app, {"remote_agent/__init__.py": ""})
    done = apps.python("src/script.py", demo_hosts, cwd=app, env=path, check=False)
    assert _is_told(done.stderr, app / "remote_agent" / "__init__.py")
    assert "CodeError" in done.stderr
