"""The plugin with `hydra.launcher.environment`: a Hydra app on a host that has none of its packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hydra import apps
from tests.packages import lock_project, make_project, make_wheel

_FILES = {
    "my_app.py": """
        import sys
        from pathlib import Path

        import hydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.experimental.callback import Callback


        class Tell(Callback):
            def on_job_end(self, config, job_return, **kwargs):
                import punct

                Path(config.hydra.runtime.output_dir, "told").write_text(punct.version)


        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg):
            import greeter

            out = Path(HydraConfig.get().runtime.output_dir)
            (out / "found").write_text(f"{greeter.version} {cfg.x} {sys.prefix}")
            return cfg.x


        if __name__ == "__main__":
            main()
        """,
    "conf/config.yaml": """
        x: 1
        hydra:
          sweep: {dir: sweep}
          callbacks: {tell: {_target_: my_app.Tell}}
        """,
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application with a lock, in a git work tree; its packages are not here."""
    index = tmp_path / "index"
    make_wheel(index, "greeter", requires=("punct",))
    make_wheel(index, "punct", "2.0")
    folder = apps.write(tmp_path / "app", _FILES)
    make_project(folder, index, ("greeter",))
    lock_project(folder)
    apps.run("git", "init", "-q", cwd=folder)
    return folder


@pytest.mark.hydra_suite
@pytest.mark.parametrize("hosts", ["demo_hosts", pytest.param("openssh_hosts", marks=pytest.mark.openssh)])
def test_a_multirun_brings_its_packages(app: Path, hosts: str, request: pytest.FixtureRequest) -> None:
    """Task and callback find them in each job; a second sweep finds the environment there."""
    arguments = [
        "my_app.py",
        "-m",
        "hydra/launcher=remote",
        f"hydra.launcher.hosts_file={request.getfixturevalue(hosts)}",
        f"hydra.launcher.workdir='~/work-{app.parent.name}'",
        "hydra.launcher.environment=auto",
    ]
    first = apps.python(*arguments, "x=5,6", cwd=app)
    said = first.stdout + first.stderr
    assert "is built" in said
    for num in (0, 1):
        version, x, prefix = (app / "sweep" / str(num) / "found").read_text().split()
        assert (version, x) == ("1.0", str(5 + num))
        assert "/envs/" in prefix
        assert (app / "sweep" / str(num) / "told").read_text() == "2.0"
    second = apps.python(*arguments, "x=7", "hydra.sweep.dir=again", cwd=app)
    assert "is there already" in second.stdout + second.stderr
    assert (app / "again" / "0" / "found").read_text().split()[2] == prefix


@pytest.mark.hydra_suite
def test_a_source_that_is_none_is_refused_before_anything_is_sent(app: Path) -> None:
    """The message names it."""
    done = apps.python(
        "my_app.py", "-m", "hydra/launcher=remote", "hydra.launcher.environment=gone.lock", cwd=app, check=False
    )
    assert done.returncode != 0
    assert "gone.lock" in done.stdout + done.stderr
    assert not (app / "sweep" / "0").exists()
