"""Which composition an application gets: by its kind, its folders, and what the user asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launcher.config.compose import compose
from launcher.errors import ConfigError


@pytest.mark.slow
def test_configs_may_come_from_other_places(app):
    """`--config-name`, `--config-dir`, `--config-path`, `hydra.searchpath` with file:// and pkg://, the ConfigStore."""
    with compose(app, config_name="other") as composition:
        assert composition.config.extra == 1
        assert composition.config_name == "other"
    with compose(app, ["db=third"], config_dir="more") as composition:
        assert composition.config.db.port == 3
    with compose(app, config_path="more", config_name="only_here") as composition:
        assert composition.config.lr == 9
    with compose(app, ["db=third", f"hydra.searchpath=[file://{Path.cwd()}/more]"]) as composition:
        assert composition.config.db.name == "third"
    sys.path.insert(0, str(Path.cwd() / "found"))
    package = next(Path("found").iterdir()).name
    with compose(app, ["db=packaged", f"hydra.searchpath=[pkg://{package}]"]) as composition:
        assert composition.config.db.port == 4


def test_missing_configs_and_folders_are_named(app):
    """The message names the config or the folder."""
    with pytest.raises(ConfigError, match="Cannot find primary config 'nope'"):
        compose(app, config_name="nope")
    with pytest.raises(ConfigError, match="nowhere' not found"):
        compose(app, config_dir="nowhere")
    with pytest.raises(ConfigError, match="Primary config directory not found"):
        compose(app, config_path="nowhere")


@pytest.mark.slow
def test_a_plain_function_may_have_a_config(plain):
    """The config may be in a folder or beside its file.

    It is composed like a Hydra app's, with defaults list and groups.
    """
    for path, text in {
        "conf/config.yaml": "defaults: [db: a]\nlr: 1\n",
        "conf/db/a.yaml": "n: 1\n",
        "conf/db/b.yaml": "n: 2\n",
        "conf/x.yaml": "lr: 2\n",
        "beside.yaml": "lr: 3\n",
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    with compose(plain, ["db=b"], config_dir="conf") as composition:
        assert composition.is_hydra
        assert (composition.config.lr, composition.config.db.n, composition.config_name) == (1, 2, "config")
        assert composition.task_name == plain.name
    with compose(plain, config_dir=Path("conf").absolute(), config_name="x") as composition:
        assert composition.config.lr == 2
    with compose(plain, ["lr=4,5"], config_name="beside", multirun=True) as composition:
        assert [composition.job_config(num, job).lr for num, job in enumerate(composition.job_overrides())] == [4, 5]
    with pytest.raises(ConfigError, match="does not exist"):
        compose(plain, config_dir="nowhere")
