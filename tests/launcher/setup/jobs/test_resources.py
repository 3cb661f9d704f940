"""What a job's own config says that it needs of its host."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from launcher.setup.jobs.resources import PLUGIN, own_resources, resources_of


def _config(resources: Any, target: str = PLUGIN, **more: Any) -> Any:
    return OmegaConf.create({"hydra": {"launcher": {"_target_": target, "resources": resources}}, **more})


def test_it_is_read_from_the_composed_config():
    """Resolved, so that a key of the application's may decide."""
    assert resources_of(_config({"gpus": "${model.gpus}"}, model={"gpus": 2})) == {"gpus": 2}
    assert resources_of(_config("${size}", size={"cpus": 4})) == {"cpus": 4}
    assert resources_of(_config("many")) == "many"


def test_another_launchers_resources_are_not_ours():
    """Their form is its own."""
    assert resources_of(_config({"num_gpus": 1}, target="other.Launcher")) == {}
    assert resources_of(OmegaConf.create({"hydra": {"launcher": {"_target_": PLUGIN}}})) is None
    assert resources_of(OmegaConf.create({"x": 1})) == {}


@pytest.mark.parametrize(
    ("given", "usual", "own"),
    [
        ({"gpus": 1, "cpus": 4}, {"gpus": 1, "cpus": 4}, {}),
        ({"gpus": 2, "cpus": 4}, {"gpus": 1, "cpus": 4}, {"gpus": 2}),
        ({"cpus": 4}, {"gpus": 1, "cpus": 4}, {"gpus": None}),
        ({"memory": "8GiB"}, {}, {"memory": "8GiB"}),
        ("many", {}, "many"),
        (None, {"gpus": 1}, None),
        (None, None, None),
    ],
)
def test_only_what_differs_from_the_runs_config_is_the_jobs_own(given, usual, own):
    """The rest may come from the command line, too. What only the run has, the job does not need."""
    assert own_resources(given, usual) == own
