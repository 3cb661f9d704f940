"""The built-in callbacks, with the names of Hydra's own.

Rule: a file is either complete or missing. It is written under another name, and then renamed.
"""

import logging
import os
import pickle
from pathlib import Path
from typing import Any

from remote_agent.callbacks.base import Callback

__all__ = ["LogJobReturnCallback", "PickleJobInfoCallback"]


class LogJobReturnCallback(Callback):
    """Logs what a job returned or how it failed, with the log lines of Hydra's callback of that name (1.3)."""

    __module__ = "remote_agent"  # for good: pickles name it

    def __init__(self) -> None:
        self.log = logging.getLogger("{}.{}".format("remote_agent.callbacks", type(self).__name__))

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        """On the host: log the return value, or the exception with its traceback."""
        # Compare by name: the status is Hydra's own if Hydra is loaded, and ours if not.
        status = job_return.status.name
        if status == "COMPLETED":
            self.log.info("Succeeded with return value: %s", job_return.return_value)
        elif status == "FAILED":
            self.log.error("", exc_info=job_return._return_value)  # noqa: SLF001 - the field of Hydra's JobReturn
        else:
            self.log.error("Status unknown. This should never happen.")


class PickleJobInfoCallback(Callback):
    """Pickles a job's config and JobReturn to `config.pickle` and `job_return.pickle` below `${output_dir}/${output_subdir}`.

    The files and log lines are those of Hydra's callback of that name (1.3). Hydra's `--experimental-rerun` reads
    `config.pickle`. cloudpickle is used for what plain pickle cannot handle (a function or class made in a notebook).
    """

    __module__ = "remote_agent"  # for good: pickles name it

    output_dir: Path

    def __init__(self) -> None:
        self.log = logging.getLogger("{}.{}".format("remote_agent.callbacks", type(self).__name__))

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        """On the host: write `config.pickle`."""
        self.output_dir = Path(config.hydra.runtime.output_dir) / (config.hydra.output_subdir or "")
        self._save("config.pickle", config)
        self.log.info("Saving job configs in %s", self.output_dir / "config.pickle")

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        """On the host: write `job_return.pickle`."""
        self._save("job_return.pickle", job_return)
        self.log.info("Saving job_return in %s", self.output_dir / "job_return.pickle")

    def _save(self, name: str, value: Any) -> None:
        try:
            data = pickle.dumps(value, protocol=4)
        except Exception:  # noqa: BLE001 - whatever a user's __reduce__ raises, cloudpickle may know better
            import cloudpickle

            data = cloudpickle.dumps(value, protocol=4)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.output_dir / ".{}.{}".format(name, os.getpid())
        try:
            temporary.write_bytes(data)
            os.replace(str(temporary), str(self.output_dir / name))
        except BaseException:
            if temporary.exists():
                temporary.unlink()
            raise
