"""Applications as people lay them out and start them: packages, other folders, search paths, structured configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hydra import apps

_PROJECT = {
    "src/package/__init__.py": "",
    "src/package/app.py": '''
        """An application in a package, with its own modules, a structured config and a type of its own for results."""

        import os
        from dataclasses import dataclass, field
        from pathlib import Path
        from typing import Any

        import hydra
        from hydra.core.config_store import ConfigStore
        from hydra.core.hydra_config import HydraConfig
        from hydra.utils import get_original_cwd, instantiate
        from omegaconf import MISSING, OmegaConf

        from package.models.linear import Linear
        from .helper import helped


        @dataclass
        class Database:
            driver: str = MISSING
            port: int = 0


        @dataclass
        class Config:
            db: Database = field(default_factory=Database)
            lr: float = 0.1
            model: Any = None
            data: Any = None


        @dataclass
        class Result:
            told: dict


        ConfigStore.instance().store(name="schema", node=Config)
        ConfigStore.instance().store(group="db", name="stored", node=Database(driver="stored", port=7))


        @hydra.main(version_base=None, config_path=CONFIG_PATH, config_name="config")
        def main(cfg):
            hydra_cfg = HydraConfig.get()
            model = instantiate(cfg.model)
            return Result(
                dict(
                    db=OmegaConf.to_container(cfg.db),
                    db_type=OmegaConf.get_type(cfg, "db").__name__,
                    is_own_type=OmegaConf.get_type(cfg, "db") is Database,
                    lr=cfg.lr,
                    model=[type(model).__module__, model.slope, isinstance(model, Linear)],
                    helped=helped(),
                    job_name=hydra_cfg.job.name,
                    output_dir=hydra_cfg.runtime.output_dir,
                    cwd=os.getcwd(),
                    original_cwd=get_original_cwd(),
                    listed=sorted(path.name for path in Path(".").iterdir() if not path.name.startswith((".", "__"))),
                    data=cfg.data,
                )
            )


        if __name__ == "__main__":
            main()
        ''',
    "src/package/helper.py": """
        def helped():
            return __name__
        """,
    "src/package/models/__init__.py": "",
    "src/package/models/linear.py": """
        class Linear:
            def __init__(self, slope):
                self.slope = slope
        """,
    "src/package/hooks/__init__.py": "from .tell import Tell as Tell",
    "src/package/hooks/tell.py": '''
        """A callback in a subpackage."""

        import json
        import sys

        from hydra.experimental.callback import Callback


        class Tell(Callback):
            def __init__(self, into):
                self.into = into

            def on_job_start(self, config, **kwargs):
                import package.app

                # The application is one module, whatever name it was started under.
                self.is_main = sys.modules["__main__"] is package.app

            def on_job_end(self, config, job_return, **kwargs):
                job_return.return_value.told["is_main"] = self.is_main

            def on_multirun_end(self, config, job_returns, **kwargs):
                main = sys.modules["__main__"]
                with open(self.into, "w") as file:
                    told = [{**one.return_value.told, "is_ours": isinstance(one.return_value, main.Result)} for one in job_returns]
                    json.dump(told, file)
        ''',
    "src/package/conf/__init__.py": "",
    "src/package/conf/config.yaml": """
        defaults:
          - schema
          - db: stored
          - _self_

        lr: 0.2
        model: {_target_: package.models.linear.Linear, slope: "${lr}"}
        data: ${oc.env:DATA_DIR,./data}
        hydra:
          sweep: {dir: "sweeps/${hydra.job.name}/${now:%Y}", subdir: "${hydra.job.num}_${hydra.job.override_dirname}"}
          callbacks: {tell: {_target_: package.hooks.Tell, into: "${oc.env:TELL}"}}
        """,
    "src/package/conf/db/mysql.yaml": """
        defaults: [stored]
        driver: mysql
        """,
    "elsewhere/db/found.yaml": """
        driver: found
        port: 9
        """,
    "start_here/.keep": "",
}


def _project(folder: Path, config_path: str = '"conf"') -> Path:
    return apps.write(folder, {name: text.replace("CONFIG_PATH", config_path) for name, text in _PROJECT.items()})


def _start(project: Path, *args: object, cwd: Path, env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Start the app, and return what its jobs recorded."""
    told = project.parent / "told.json"
    apps.python(*args, cwd=cwd, env={"TELL": str(told), **(env or {})})
    result = json.loads(told.read_text())
    for one in result:
        assert one["is_ours"], "a result is of the class that the application knows"
        assert one["is_main"]
        assert one["is_own_type"]
        assert one["helped"] == "package.helper"
        assert one["model"][0::2] == ["package.models.linear", True]
    return result


pytestmark = pytest.mark.hydra_suite


@pytest.fixture(params=["local", "demo", pytest.param("openssh", marks=pytest.mark.openssh)])
def there(request: pytest.FixtureRequest) -> list[str]:
    """The plugin, with each kind of host."""
    plugin = ["-m", "hydra/launcher=remote"]
    if request.param == "local":
        return plugin
    return [*plugin, f"hydra.launcher.hosts_file={request.getfixturevalue(f'{request.param}_hosts')}"]


def test_a_package_may_be_started_with_dash_m(tmp_path: Path, there: list[str]) -> None:
    """With `python -m package.app`, this checks job name, own modules, relative imports, structured configs and sweep
    folders.
    """
    project = _project(tmp_path / "project")
    src = project / "src"
    told = _start(project, "-m", "package.app", *there, "db=mysql,stored", "lr=0.5", cwd=src)
    assert [one["db"] for one in told] == [{"driver": "mysql", "port": 7}, {"driver": "stored", "port": 7}]
    assert [one["lr"] for one in told] == [0.5, 0.5]
    assert {one["job_name"] for one in told} == {"app"}
    (year,) = (src / "sweeps" / "app").iterdir()
    assert sorted(one.name for one in year.iterdir() if one.is_dir() and one.name != ".launcher") == [
        "0_db=mysql,lr=0.5",
        "1_db=stored,lr=0.5",
    ]
    assert (year / "0_db=mysql,lr=0.5" / "app.log").exists()
    assert [one["output_dir"].rpartition("/")[2] for one in told] == ["0_db=mysql,lr=0.5", "1_db=stored,lr=0.5"]


def test_a_script_may_be_started_from_another_folder(tmp_path: Path, there: list[str]) -> None:
    """On a host, the working folder corresponds to the folder where the app was started, even if that is empty."""
    project = _project(tmp_path / "project")
    apps.write(project, {"src/script.py": "from package.app import main\n\nif __name__ == '__main__':\n    main()\n"})
    (project / "src" / "package" / "hooks" / "tell.py").write_text(
        (project / "src" / "package" / "hooks" / "tell.py")
        .read_text()
        .replace('sys.modules["__main__"] is package.app', "True")
        .replace('sys.modules["__main__"]', "sys.modules['package.app']")
    )
    apps.run("git", "init", "-q", cwd=project)
    (told,) = _start(project, "../src/script.py", *there, cwd=project / "start_here")
    assert told["cwd"].endswith("/start_here")
    assert told["original_cwd"] == told["cwd"]
    assert told["db"] == {"driver": "stored", "port": 7}


@pytest.mark.parametrize("config_path", ['"pkg://package.conf"', "None"])
def test_search_paths_are_read_here(tmp_path: Path, there: list[str], config_path: str) -> None:
    """pkg:// in config_path, file:// in hydra.searchpath and --config-dir are all read here.

    The host needs none of them.
    """
    project = _project(tmp_path / "project", config_path)
    elsewhere = tmp_path / "elsewhere"
    (project / "elsewhere").rename(elsewhere)
    more = ["--config-dir", project / "src" / "package" / "conf"] if config_path == "None" else []
    overrides = ["db=found", f"hydra.searchpath=[file://{elsewhere}]"]
    (told,) = _start(project, "-m", "package.app", *more, *there, *overrides, cwd=project / "src")
    assert told["db"] == {"driver": "found", "port": 9}


def test_paths_of_data_may_differ_per_host(tmp_path: Path, there: list[str]) -> None:
    """`${oc.env:...}` is resolved where the job runs.

    The variables come from the hosts file or the launcher's options.
    """
    project = _project(tmp_path / "project")
    where = "+hydra.launcher.env.DATA_DIR=/mnt/data"
    (told,) = _start(project, "-m", "package.app", *there, where, cwd=project / "src", env={"DATA_DIR": "/here"})
    assert told["data"] == "/mnt/data"
