"""A job's `__main__` looks like the script's.

Every way to start a run is compared with what Python itself gives the same function.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hydra import apps

_TELL = """
    import os
    import pickle
    import subprocess
    import sys


    def tell(own):
        import __main__

        spec, started = __main__.__spec__, [sys.executable, sys.argv[0]]
        if spec is not None:
            started = [sys.executable, "-m", spec.name]
        again = subprocess.run([*started, "--again"], capture_output=True, text=True, cwd=os.environ.get("BACK"))
        return {
            "spec": spec and spec.name,
            "package": __main__.__package__,
            "file": os.path.basename(__main__.__file__),
            "file is there": os.path.isfile(__main__.__file__),
            "argv[0] is absolute": os.path.isabs(sys.argv[0]),
            "argv[0] is the script": os.path.realpath(sys.argv[0]) == os.path.realpath(__main__.__file__),
            "sys.path[0] is": os.path.relpath(sys.path[0], os.path.dirname(__main__.__file__)),
            "orig_argv starts": [os.path.basename(one) for one in sys.orig_argv[1:2]],
            "its class": __main__.Net is own,
            "its class from a pickle": pickle.loads(b"c__main__\\nNet\\n.") is own,
            "its class pickled": type(pickle.loads(pickle.dumps(own()))) is own,
            "started anew": again.stdout,
        }
    """
#: Comes first: a Python that is started on a host has no packages.
_AGAIN = """
    import sys

    if "--again" in sys.argv:
        print("again")
        sys.exit()

    """
_NET = """
    class Net:
        pass

    """
_HYDRA = (
    _AGAIN
    + """
    import json
    from pathlib import Path

    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from seen import tell
    """
    + _NET
    + """
    @hydra.main(version_base=None, config_path=None)
    def main(cfg):
        assert type(instantiate({"_target_": "__main__.Net"})) is Net
        Path(HydraConfig.get().runtime.output_dir, "told.json").write_text(json.dumps(tell(Net)))


    if __name__ == "__main__":
        main()
    """
)
_PLAIN = (
    _AGAIN
    + """
    import json

    import launcher

    from seen import tell
    """
    + _NET
    + """
    def task(cfg):
        return tell(Net)


    if __name__ == "__main__":
        way, hosts, isolation = sys.argv[1:4]
        options = launcher.LaunchConf(hosts_file=hosts or None, isolation=isolation)
        if way == "call":
            told = task({})
        elif way == "run":
            told = launcher.run(task, options=options).return_value
        elif way == "multirun":
            told = launcher.multirun(task, [{}], options=options)[0].return_value
        else:
            with launcher.Session.open(options=options) as session:
                told = session.submit(task, {}).result()
        print(json.dumps(told))
    """
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The same application as a script in a folder, and in a package."""
    app = apps.write(
        tmp_path / "project",
        {
            "src/seen.py": _TELL,
            "src/my_app.py": _HYDRA,
            "src/package/__init__.py": "",
            "src/package/app.py": _HYDRA,
            "src/script.py": _PLAIN,
        },
    )
    apps.run("git", "init", "-q", cwd=app)
    return app


def _told(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("told.json")
    told: dict[str, Any] = json.loads(path.read_text())
    return told


@pytest.fixture(params=["local", pytest.param("openssh", marks=pytest.mark.openssh)])
def hosts(request: pytest.FixtureRequest) -> Path | None:
    """This machine, and a host without a shared disk."""
    return None if request.param == "local" else request.getfixturevalue("openssh_hosts")


pytestmark = pytest.mark.slow

#: How it is started (arguments of Python, folder), and how the command line names the same.
_STARTS = {
    "from its project": (["src/my_app.py"], ".", "src/my_app.py"),
    "from its folder": (["my_app.py"], "src", "my_app.py"),
    "by its whole path": (["{project}/src/my_app.py"], "src", "{project}/src/my_app.py"),
    "as a module": (["-m", "package.app"], "src", "package.app"),
}


@pytest.mark.parametrize(
    ("start", "isolation"), [*((start, "fork") for start in _STARTS), ("from its project", "spawn")]
)
def test_the_main_module_of_a_hydra_app_is_the_scripts(
    project: Path, hosts: Path | None, start: str, isolation: str
) -> None:
    """With the plugin, `launcher run` and `launcher multirun` it is as under Hydra's own launcher."""
    arguments, folder, named = _STARTS[start]
    arguments, cwd = [one.format(project=project) for one in arguments], project / folder
    apps.python(*arguments, "-m", "hydra.sweep.dir=basic", "+x=1", cwd=cwd)
    expected = _told(cwd / "basic")
    assert expected["started anew"] == "again\n"
    there = [f"hydra.launcher.hosts_file={hosts}"] if hosts else []
    plugin = ["-m", "hydra/launcher=remote", *there, f"hydra.launcher.isolation={isolation}"]
    apps.python(*arguments, *plugin, "hydra.sweep.dir=plugin", "+x=1", cwd=cwd)
    assert _told(cwd / "plugin") == expected
    way = "run" if isolation == "fork" else "multirun"
    there = ["--hosts", str(hosts)] if hosts else []
    apps.launcher(
        way, named.format(project=project), "+x=1", *there, "--isolation", isolation, "--folder", way, cwd=cwd
    )
    assert _told(cwd / way) == expected


@pytest.mark.parametrize(("way", "isolation"), [("run", "spawn"), ("multirun", "fork"), ("session", "fork")])
def test_the_main_module_of_a_plain_script_is_the_scripts(
    project: Path, hosts: Path | None, way: str, isolation: str
) -> None:
    """With `run`, `multirun` and `Session` it is as if the script called the function itself."""
    called = apps.python("src/script.py", "call", "", isolation, cwd=project)
    ran = apps.python("src/script.py", way, hosts or "", isolation, cwd=project)
    assert json.loads(ran.stdout) == json.loads(called.stdout)
