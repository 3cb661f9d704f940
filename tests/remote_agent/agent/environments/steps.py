"""A build as an agent does it, which is killed at a step: `python -m tests.remote_agent.agent.environments.steps FOLDER SPEC N`.

A step is whatever changes the disk below the folder, or starts a program. Before the one of that number the process kills itself. Prints
`done` where there are fewer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from remote_agent.agent.environments.build import Builder
from remote_agent.agent.environments.store.store import EnvironmentStore
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.protocol.specs.environment import EnvironmentSpec

__all__ = ["build"]

_CHANGES = (
    "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "subprocess.Popen",
)  # fmt: skip


def build(cache: str, spec: EnvironmentSpec, boot: str = "now") -> str:
    """What an agent does to have an environment; returns its Python."""
    store = EnvironmentStore(cache, boot)
    store.prepare()
    assert store.lock(spec.key)
    Builder(store, BlobStore(os.path.join(cache, "blobs")), spec).build()
    store.unlock(spec.key)
    store.use(spec.key, "run.host")
    store.sync(spec.key)
    python = store.python(spec.key)
    assert python is not None
    return python


def _main() -> None:
    cache, said, number = sys.argv[1:]
    left = int(number)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        is_there = event == "subprocess.Popen" or str(arguments[0] if arguments else "").startswith(cache)
        if (event in _CHANGES or is_written) and is_there:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    build(cache, EnvironmentSpec.from_json(json.loads(said)))
    sys.stdout.write("done\n")


if __name__ == "__main__":
    _main()
