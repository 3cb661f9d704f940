"""The Hydra application of the benchmarks: a job that does nothing but say when the first one started."""

import contextlib
import os

import hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Hooks(Callback):
    """A callback whose hooks do nothing."""


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """The file's time of change is when the first job started; all sides run on this machine, by its clock."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(config.first, os.O_CREAT | os.O_EXCL))


if __name__ == "__main__":
    main()
