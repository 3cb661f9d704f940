"""What nodes build on their own disks, as the login node writes it down for them."""

from __future__ import annotations

import json
import os

import pytest

from remote_agent.agent.environments.on_nodes import NodePlan, own_folder
from remote_agent.protocol.fields import FieldError
from tests.remote_agent.agent.environments.sites import KEY, Site


def test_it_is_read_as_it_was_written(bare: Site) -> None:
    """Its Python lies in a folder of this user's own, so others may name the same folder."""
    plan = NodePlan("/scratch", bare.spec(), 5)
    assert NodePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.python == f"/scratch/hydra-remote-launcher-{os.geteuid()}/envs/{KEY}/bin/python"
    assert plan.python.startswith(own_folder("/scratch"))


def test_what_is_not_valid_is_refused(bare: Site) -> None:
    """It would be part of a path."""
    said = NodePlan("/scratch", bare.spec(), None).to_json()
    with pytest.raises(FieldError, match="key"):
        NodePlan.from_json(dict(said, spec=dict(said["spec"], key="../x")))
