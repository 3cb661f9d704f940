"""Replaces a zygote that must not fork any more by one that imports nothing, and tries the import in a child.

Rule: the new zygote gets everything that the old one was given, and the environment as it was before the application was imported.
"""

import json
import os
import pickle
import socket
import sys
from typing import Any, Dict, List, NoReturn, Tuple

from remote_agent.job import JobError
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.zygote.imports.prepare import Unusable, as_unusable, prepare

__all__ = ["probe", "read_handover", "respawn"]


def respawn(
    sock: socket.socket,
    spec: ZygoteSpec,
    payload: bytes,
    bundle: str,
    why: str,
    notes: List[str],
    environment: Dict[str, str],
) -> NoReturn:
    """Replace this process, which has imported the application, by a zygote that forks before importing."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as file:
        pickle.dump((spec, payload, why, notes), file, 4)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        for fd in (sock.fileno(), file.fileno()):
            os.set_inheritable(fd, True)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
        script = os.path.join(bundle, "remote_agent", "zygote", "entry.py")
        arguments = [script, str(sock.fileno()), bundle, str(file.fileno())]
        os.execve(sys.executable, [sys.executable, *flags, *arguments], environment)  # noqa: S606 - our own script


def read_handover(fd: int) -> Tuple[ZygoteSpec, bytes, str, List[str]]:
    """Read what `respawn` wrote: the spec, the shared payload, why a fork would break, and the notes so far."""
    with os.fdopen(fd, "rb") as file:
        return pickle.load(file)  # type: ignore[no-any-return]  # noqa: S301  (written by `respawn`)


def probe(spec: ZygoteSpec, payload: bytes, bundle: str) -> List[str]:
    """Prepare once in a child, to know before any job starts whether that works. Returns its notes.

    Raises:
        Unusable: it does not work.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: Dict[str, Any]
        try:
            answer = {"notes": prepare(spec, payload, bundle).notes}
        except BaseException as error:  # noqa: BLE001 - as above
            answer = {"error": as_unusable(error).error.to_json()}
        with os.fdopen(writer, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        raise RuntimeError("importing the application ended the process with status {}".format(status))
    answer = json.loads(text)
    if "error" in answer:
        raise Unusable(JobError.from_json(answer["error"]))
    return list(answer["notes"])
