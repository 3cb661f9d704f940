"""The paths of an agent: its run, its host, its folders, and the file names of each attempt.

Rule: every path of an attempt is made here and nowhere else.
"""

import os
from typing import Any, Dict, Optional

from remote_agent.agent.spool.attempt import Attempt
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.system.host import Folders

__all__ = ["SpoolPaths", "outputs_root"]


class SpoolPaths:
    """Facts and folders of an agent, which never change."""

    def __init__(
        self, run: str, host: str, where: Folders, bundle: str, umask: int, boot: str, blobs: str = ""
    ) -> None:
        self.run = run
        self.host = host
        self.where = where
        self.spool = where.spool
        self.bundle = bundle
        self.umask = umask
        self.boot = boot
        #: The folder of the run's contents, which may be another one's.
        self.blobs = blobs or os.path.join(where.spool, "blobs")

    def token(self, attempt: Attempt) -> str:
        """The value that every process of an attempt has in its environment."""
        return "{}/{}".format(self.run, attempt.id)

    def stream(self, attempt: Attempt, stream: str) -> str:
        """The file of an attempt's stdout or stderr."""
        return "{}/streams/{}.{}".format(self.spool, attempt.id, stream)

    def streams(self, attempt: Attempt) -> Dict[str, str]:
        """Both files, by the name of the stream."""
        return {stream: self.stream(attempt, stream) for stream in ("stdout", "stderr")}

    def payload(self, attempt: Attempt, suffix: str) -> str:
        """The file of an attempt's payload, beside the log."""
        return os.path.join(self.spool, "payload", attempt.id + suffix)

    def reports(self, attempt: Attempt) -> str:
        """The folder in which an attempt reports (`remote_agent/shared/report_ring.py`)."""
        return os.path.join(self.spool, "reports", attempt.id)

    def orphan(self, attempt: Attempt) -> str:
        """The file to which a job writes its frames if there is no agent."""
        return os.path.join(self.spool, "orphan-" + attempt.id)

    def output_dir(self, attempt: Attempt) -> str:
        """An attempt's output directory, absolute."""
        return self.own_output(attempt) or attempt.spec.output_dir

    def with_folder(self, earlier: Dict[str, Any], spec: JobSpec) -> Dict[str, Any]:
        """Add to what is told of an earlier attempt at a job where its output folder is, if that is on this host."""
        folder = earlier.get("folder") or os.path.normpath(
            os.path.join(outputs_root(self.spool, earlier["attempt"]), spec.output_dir)
        )
        return dict(earlier, folder=folder if os.path.isdir(folder) else "")

    def own_output(self, attempt: Attempt) -> Optional[str]:
        """The output directory if the agent sends and removes it; None if it is the user's own folder."""
        return self.output_of(attempt.spec, attempt.spec.attempt)

    def output_of(self, spec: JobSpec, number: int) -> Optional[str]:
        """The same for the attempt of this number at a job."""
        path = spec.output_dir
        return None if os.path.isabs(path) else os.path.normpath(os.path.join(outputs_root(self.spool, number), path))


def outputs_root(spool: str, attempt: int) -> str:
    """The folder with an attempt's relative output directory in it. Each attempt number has its own."""
    return os.path.join(spool, "outputs" if attempt == 1 else "outputs.{}".format(attempt))
