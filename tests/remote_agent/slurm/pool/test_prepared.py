"""What allocations need to prepare applications lies on the shared disk, for this user alone."""

from __future__ import annotations

import os
from pathlib import Path

from remote_agent.slurm.pool.prepared import PREPARED, read_prepared, write_prepared
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from tests.remote_agent.slurm.allocation.test_allocation import PREPARED_APP
from tests.specs import zygote_spec


def test_what_an_application_needs_is_private(tmp_path: Path):
    """It has the variables of the jobs, so only the user may read it. It is read as it was written."""
    files = SharedFiles(str(tmp_path), "submitter")
    files.make_folder(PREPARED)
    prepared = PREPARED_APP._replace(spec=zygote_spec(environ={"TOKEN": "secret"}), code_root="/code")
    write_prepared(files, prepared)
    (name,) = os.listdir(tmp_path / PREPARED)
    assert (tmp_path / PREPARED / name).stat().st_mode & 0o777 == 0o600
    assert read_prepared(files) == [prepared]
    # An earlier version does not know what a node must build, so that is only there where a node must.
    assert b"node" not in (tmp_path / PREPARED / name).read_bytes()


def test_what_a_node_must_build_before_is_read_as_it_was_written(tmp_path: Path):
    """With the rest."""
    files = SharedFiles(str(tmp_path), "submitter")
    files.make_folder(PREPARED)
    prepared = PREPARED_APP._replace(node={"named": "/scratch", "spec": {}, "budget": None})
    write_prepared(files, prepared)
    assert read_prepared(files) == [prepared]
