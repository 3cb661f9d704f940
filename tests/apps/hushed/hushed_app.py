"""An application that is given secrets: it proves that it got them, says nothing of them, and ends in several ways."""

import hashlib
import os
import sys
import threading
import time
from pathlib import Path

import hydra

import launcher

NAMES = ("HUSHED_RUN", "HUSHED_HOST", "HUSHED_FORWARDED")


def work(cfg):
    """Wait for the gate; then x=1 raises, x=2 exits, x=3 is killed, and all others return digests of what they were given."""
    print("job", cfg.x, flush=True)
    place = Path(cfg.place).expanduser()
    (place / f"began.{cfg.x}").touch()
    deadline = time.monotonic() + 120
    while not (place / "gate").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the gate stayed shut")
        threading.Event().wait(0.02)
    if cfg.x == 1:
        raise ValueError("job 1 does not like it")
    if cfg.x == 2:
        sys.exit(3)
    if cfg.x == 3:
        os.kill(os.getpid(), 9)
    values = [os.environ[name] for name in NAMES]
    # A config takes a secret by the variable's name, and has it where it is read.
    values.append(str(cfg.get("token", "")))
    return [hashlib.sha256(value.encode()).hexdigest() for value in values]


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    """The same under Hydra."""
    return work(cfg)


def from_python(place, given, options):
    """The Python way; the values come from a file, so that no command line has them."""
    configs = [{"x": x, "place": place, "token": "${oc.env:HUSHED_RUN}"} for x in range(4)]
    pickles = [launcher.PickleJobInfoCallback(), launcher.LogJobReturnCallback()]
    returns = launcher.multirun(work, configs, env=given, folder="sweep", callbacks=pickles, **options)
    print([one.status.name for one in returns], returns[0].return_value)
    print(repr(options.get("hosts")), repr(launcher.LaunchConf(env=given)))


if __name__ == "__main__":
    main()
