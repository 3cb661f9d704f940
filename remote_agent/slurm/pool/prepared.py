"""What allocations need to prepare applications: the submitter publishes it, and they read it.

Rule: it has the variables of the jobs, which may be secrets, so only this user may read it.
"""

import json
from typing import List

from remote_agent.agent.zygotes.pool import Prepared
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.slurm.shared_disk.shared_files import SharedFiles

__all__ = ["PREPARED", "read_prepared", "write_prepared"]

#: The folder of it.
PREPARED = "prepared"


def write_prepared(files: SharedFiles, prepared: Prepared) -> None:
    """Publish what an application needs to be prepared.

    Raises:
        OSError: it is not known whether it is there.
    """
    content = dict(zip(Prepared._fields, prepared), spec=prepared.spec.to_json())
    if prepared.node is None:
        # An earlier version does not know it, and must not run jobs without it.
        del content["node"]
    files.write(json.dumps(content).encode("ascii"), PREPARED, "{}.json".format(prepared.key))


def read_prepared(files: SharedFiles) -> List[Prepared]:
    """Return what can be seen here of what was published."""
    found = []
    for name in files.names(PREPARED):
        data = files.read(PREPARED, name)
        if data is not None:
            content = json.loads(data.decode("ascii"))
            found.append(Prepared(**dict(content, spec=ZygoteSpec.from_json(content["spec"]))))
    return found
