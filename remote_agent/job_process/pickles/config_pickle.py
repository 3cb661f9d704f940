"""The pickled config of a job (`config.pickle`), as the controller will use it.

Rule: a callback in a job sees the folders of this host in the config. But the file that it pickles goes back to the controller, where
Hydra's `--experimental-rerun` opens the log of the job by these folders. So the file gets the controller's folders. This happens right
after the start hooks, so that the file is also of use if the job is killed.
"""

import os
import pickle
from typing import Any

from remote_agent.callbacks.composite import Callbacks
from remote_agent.shared.failure import safe_text, type_name
from remote_agent.shared.job_log import logger

__all__ = ["rewrite_config_pickle"]

_NAME = "config.pickle"
#: Hydra's callback has this name, and so have ours and those that derive from either.
_WRITER = "PickleJobInfoCallback"


def rewrite_config_pickle(callbacks: Callbacks, folder: str, host_output_dir: str, output_dir: Any, cwd: Any) -> None:
    """Put the controller's folders into the `config.pickle` that a callback of this job has written.

    Args:
        folder: where it lies.
        host_output_dir: the job's output directory on this host. A file with another one is not changed.
        output_dir, cwd: what `hydra.runtime` is to say instead.
    """
    classes = {cls.__name__ for entry in callbacks for cls in type(entry.instance).__mro__}
    if output_dir == host_output_dir or _WRITER not in classes:
        return
    path = os.path.join(folder, _NAME)
    try:
        with open(path, "rb") as file:
            config = pickle.load(file)  # noqa: S301 - this job wrote it
        if config.hydra.runtime.output_dir != host_output_dir:
            return
        _write(path, _dumped(_with_folders(config, output_dir, cwd)))
    except Exception as error:  # noqa: BLE001 - a callback may have written anything, and a user's object may raise anything
        logger.warning("%s keeps this host's folders: %s: %s", path, type_name(error), safe_text(error))


def _with_folders(config: Any, output_dir: Any, cwd: Any) -> Any:
    from omegaconf import open_dict, read_write

    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = output_dir
        config.hydra.runtime.cwd = cwd
    return config


def _dumped(config: Any) -> bytes:
    try:
        return pickle.dumps(config, 4)
    except Exception:  # noqa: BLE001 - whatever a user's __reduce__ raises, cloudpickle may know better
        import cloudpickle

        return cloudpickle.dumps(config, protocol=4)  # type: ignore[no-any-return]


def _write(path: str, data: bytes) -> None:
    temporary = "{}.{}".format(path, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
