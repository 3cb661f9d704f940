"""Applications as real scripts have them: no guard at the end, decorators, configs stored late, `compose()` inside a
job.

Each runs under Hydra's basic launcher and under ours, and must report the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.hydra import apps

_CONF = {"conf/config.yaml": "x: 1\nhydra: {sweep: {dir: sweep}}\n"}
_TELL = """
import json
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig


def tell(*told):
    Path(HydraConfig.get().runtime.output_dir, "told.json").write_text(json.dumps(told))
"""
_MAIN = '@hydra.main(version_base=None, config_path="conf", config_name="config")'

_SCRIPTS = {
    "no guard": f"""
        import hydra
        from tell import tell

        {_MAIN}
        def main(cfg):
            tell(cfg.x)

        main()
        """,
    "decorated twice": f"""
        import functools

        import hydra
        from tell import tell

        def counted(function):
            @functools.wraps(function)
            def wrapper(*args):
                wrapper.calls += 1
                return function(*args)
            wrapper.calls = 0
            return wrapper

        @counted
        {_MAIN}
        @counted
        def main(cfg):
            tell(cfg.x, main.__wrapped__.__wrapped__.calls > 0)

        if __name__ == "__main__":
            main()
        """,
    "a method": f"""
        import hydra
        from tell import tell

        class Trainer:
            def __init__(self, factor):
                self.factor = factor

            def train(self, cfg):
                tell(self.factor * cfg.x)

        if __name__ == "__main__":
            {_MAIN[1:]}(Trainer(3).train)()
        """,
    "stored late": f"""
        from dataclasses import dataclass

        import hydra
        from hydra import compose
        from hydra.core.config_store import ConfigStore
        from hydra.core.global_hydra import GlobalHydra
        from omegaconf import OmegaConf
        from tell import tell

        @dataclass
        class Model:
            size: int = 1

        {_MAIN}
        def main(cfg):
            other = compose("config", overrides=["+model=large", "x=7"])
            whole = compose("config", overrides=[], return_hydra_config=True)
            is_ours = OmegaConf.get_type(other.model) is Model
            tell(cfg.x, other.x, other.model.size, is_ours, whole.hydra.sweep.dir, GlobalHydra().is_initialized())

        if __name__ == "__main__":
            ConfigStore.instance().store(group="model", name="large", node=Model(size=9))
            main()
        """,
}


@pytest.fixture(params=["local", pytest.param("openssh", marks=pytest.mark.openssh)])
def there(request: pytest.FixtureRequest) -> Path | None:
    """No host, or a hosts file with a host without a shared disk."""
    return request.getfixturevalue(f"{request.param}_hosts") if request.param != "local" else None


def _told(app: Path) -> list[object]:
    return [json.loads((app / "sweep" / str(num) / "told.json").read_text()) for num in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_reports_the_same_as_under_hydras_launcher(tmp_path: Path, script: str, there: Path | None) -> None:
    """It runs on a host unchanged, although it is not started there as a script."""
    files = {**_CONF, "tell.py": _TELL, "my_app.py": _SCRIPTS[script]}
    theirs, ours = apps.write(tmp_path / "theirs", files), apps.write(tmp_path / "ours", files)
    apps.python("my_app.py", "-m", "hydra/launcher=basic", "x=2,3", cwd=theirs)
    hosts = [f"hydra.launcher.hosts_file={there}"] if there else []
    apps.python("my_app.py", "-m", "hydra/launcher=remote", *hosts, "x=2,3", cwd=ours)
    assert _told(ours) == _told(theirs)


@pytest.mark.openssh
def test_a_formatter_may_be_named_only_in_the_config(tmp_path: Path, openssh_hosts: Path) -> None:
    """hydra-colorlog's configs name colorlog, which no application imports. Hosts need not have it."""
    logging = """
        version: 1
        formatters: {coloured: {(): colorlog.ColoredFormatter, format: "%(log_color)s%(message)s"}}
        handlers: {file: {class: logging.FileHandler, formatter: coloured, filename: "${hydra.runtime.output_dir}/it.log"}}
        root: {level: INFO, handlers: [file]}
        """
    script = f"""
        import logging

        import hydra

        {_MAIN}
        def main(cfg):
            logging.getLogger("any").info("x is %s", cfg.x)

        if __name__ == "__main__":
            main()
        """
    files = {**_CONF, "conf/hydra/job_logging/coloured.yaml": logging, "my_app.py": script}
    app = apps.write(tmp_path, files)
    hosts = ["hydra/launcher=remote", f"hydra.launcher.hosts_file={openssh_hosts}"]
    apps.python("my_app.py", "-m", *hosts, "hydra/job_logging=coloured", "x=2", cwd=app)
    assert "\x1b[32mx is 2" in (app / "sweep" / "0" / "it.log").read_text()


@pytest.mark.slow
def test_a_script_may_have_no_guard(tmp_path: Path, there: Path | None) -> None:
    """`launcher multirun` imports the script here and on the host, without starting it."""
    app = apps.write(tmp_path, {**_CONF, "tell.py": _TELL, "my_app.py": _SCRIPTS["no guard"]})
    hosts = ["--hosts", there] if there else []
    apps.launcher("multirun", "my_app.py", "x=2,3", *hosts, cwd=app)
    assert _told(app) == [[2], [3]]


@pytest.mark.openssh
def test_a_config_whose_class_is_only_here_affects_no_other(tmp_path: Path, openssh_hosts: Path) -> None:
    """A package that only this machine has put configs into the ConfigStore. On the host, the app's own configs are
    there, and so is the content of these.
    """
    apps.write(tmp_path / "site-packages", {"only_here.py": _ONLY_HERE})
    project = apps.write(tmp_path / "project", {"my_app.py": _STORES})
    done = apps.python(
        *(
            "my_app.py",
            "-m",
            "hydra/launcher=remote",
            f"hydra.launcher.hosts_file={openssh_hosts}",
            "hydra.launcher.live=true",
        ),
        cwd=project,
        env={"PYTHONPATH": f"{os.environ['PYTHONPATH']}:{tmp_path / 'site-packages'}"},
    )
    assert "composed 7 hidden" in done.stdout
    assert "have no types on the host: theirs/one.yaml (ModuleNotFoundError" in done.stdout
    assert "hydra/sweeper" not in done.stdout.partition("no types on the host")[2]


_ONLY_HERE = """
    from dataclasses import dataclass
    from hydra.core.config_store import ConfigStore

    @dataclass
    class Theirs:
        what: str = "hidden"

    def install():
        ConfigStore.instance().store(group="theirs", name="one", node=Theirs)
        ConfigStore.instance().store(group="hydra/sweeper", name="theirs", node=Theirs)
    """
_STORES = """
    from dataclasses import dataclass

    import hydra
    from hydra import compose
    from hydra.core.config_store import ConfigStore


    @dataclass
    class Db:
        port: int = 7


    @hydra.main(version_base=None, config_path=None)
    def main(cfg):
        print("composed", compose("db").port, compose(overrides=["+theirs=one"]).theirs.what)


    if __name__ == "__main__":
        import only_here
        only_here.install()
        ConfigStore.instance().store(name="db", node=Db)
        main()
    """
