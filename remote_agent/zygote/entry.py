"""The start of a zygote, under whatever Python the job environment has.

Rule: this file parses under any Python from 2.7 on. So a Python that is too old is reported in a frame, and not by a syntax error in a
log that nobody reads.
"""
# ruff: noqa: ANN001, ANN201, ANN202, UP031, UP036  (annotations and the newer formats do not parse in the Pythons that it is for)

import os
import stat
import sys

_WRONG_HOST = (
    "This Python does not have the descriptor that the agent gave it: it was started elsewhere. The jobs' Python must "
    "be a child of the agent, on the agent's host; srun, ssh and docker start it somewhere else.\n"
)


def _too_old(fd):  # type: (int) -> None
    # A frame of `remote_agent.protocol.wire`, made by hand, because that module does not parse here.
    import json
    import struct
    import zlib

    error = {
        "kind": "host",
        "type": "PythonTooOld",
        "message": "the job environment's Python is %d.%d (%s); 3.8 or later is needed. Name another one for this host."
        % (sys.version_info[0], sys.version_info[1], sys.executable),
        "traceback": "",
        "causes": [],
    }
    head = json.dumps({"t": "unusable", "error": error}).encode("utf-8")
    frame = struct.pack("!2sBxIQI", b"RL", 1, len(head), 0, zlib.crc32(head) & 0xFFFFFFFF) + head
    while frame:
        frame = frame[os.write(fd, frame) :]


def _is_socket(fd):  # type: (int) -> bool
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def main(argv):  # type: (list[str]) -> int
    """FD BUNDLE_DIR [REST...]: serve the agent on FD."""
    fd, bundle = int(argv[1]), argv[2]
    if not _is_socket(fd):
        sys.stderr.write(_WRONG_HOST)
        return 3
    if sys.version_info < (3, 8):
        _too_old(fd)
        return 3
    # sys.path[0] is this file's folder. Its modules must not be importable by their bare names.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [bundle] + [path for path in sys.path if path and os.path.abspath(path) != here]
    is_off, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    from remote_agent.system.bytecode import keep_bytecode_whole

    keep_bytecode_whole(is_off)
    from remote_agent.zygote import server

    return server.main(fd, bundle, argv[3:])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
