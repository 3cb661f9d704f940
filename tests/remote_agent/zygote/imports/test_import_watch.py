"""What a zygote tells of the application's import: names of packages, and yes or no."""

from __future__ import annotations

import pytest

NOTHING = {"configs": False, "resolvers": False, "process": False, "modules": []}
TASK = "\ndef task(cfg):\n    return 'here'\n"


def told(host, text: str, **more):
    """What is told of an application with this text at its top."""
    host.write({"my_app.py": text + TASK})
    ready = host.start("my_app:task", main_module="my_app", **more)
    assert ready.header["t"] == "ready", ready.header
    return ready.header["imported"]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("import json, collections", {}),
        ("from omegaconf import OmegaConf\nOmegaConf.register_new_resolver('mine', str)", {"resolvers": True}),
        pytest.param("from omegaconf import OmegaConf\nOmegaConf.register_new_resolver('oc.env', str, replace=True)", {"resolvers": True}, marks=pytest.mark.slow),
        ("import os\nos.environ['MINE'] = '1'", {"process": True}),
        pytest.param("import os\nos.environ.pop('PATH', None)", {"process": True}, marks=pytest.mark.slow),
        pytest.param("import os\nos.chdir('/')", {"process": True}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_the_import_does_is_told(host, text, facts):
    """A plain application: resolvers, variables, the working folder."""
    assert told(host, text) == {**NOTHING, **facts}


def test_installed_packages_are_named(host):
    """By their top-level names; the application's own modules and the standard library are not among them."""
    host.write({"helping.py": "X = 1"})
    assert told(host, "import helping, numpy, email.mime.text")["modules"] == ["numpy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("from hydra.core.config_store import ConfigStore", {}),
        (
            "from hydra.core.config_store import ConfigStore\nConfigStore.instance().store('mine', {'x': 1}, group='db')",
            {"configs": True},
        ),
    ],
)
def test_configs_of_a_hydra_app_are_told(host, text, facts):
    """Those that the import puts into the ConfigStore; Hydra's own do not count."""
    import hydra
    import omegaconf

    controller = {
        "python": [],
        "by_value": False,
        "omegaconf": omegaconf.__version__,
        "hydra": hydra.__version__,
        "cloudpickle": "3.0.0",
    }
    assert {**told(host, text, controller=controller), "modules": []} == {**NOTHING, **facts}


@pytest.mark.slow
def test_nothing_is_told_where_each_job_imports_by_itself(host):
    """The process that tried the import is gone then."""
    assert told(host, "import json", isolation="spawn") is None
