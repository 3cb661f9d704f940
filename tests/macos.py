"""A stand-in for a Mac: what Linux has and macOS lacks is taken away from a command and all that it starts.

    sudo python3.10 -m tests.macos COMMAND [ARGUMENT...]

Rule: it takes away, and it answers where the project asks macOS by another way. It proves nothing about a Mac beyond that.

* Python says `sys.platform == "darwin"`, and has none of the functions and constants that macOS does not have. That reaches
  an interpreter that is started with `-I -S`, too: `os.py` and `socket.py` of the standard library are replaced for it. So
  the Python must be one whose `os` is not frozen: 3.10 or older.
* There is no `/proc`. `ps`, `lsof` and `sysctl` answer as those of macOS do.
* A socket's path has at most 104 bytes, there are no abstract sockets, and `sendfile` sends to sockets alone.
* There is no command `setsid`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

__all__ = ["main"]

_OS = '''

# -- macOS -----------------------------------------------------------------------------------------------------------
def _as_on_macos():
    import errno, fcntl, posix, select, signal, stat, _signal, _socket, sys

    sys.platform = "darwin"
    lacking = """pipe2 sched_getaffinity sched_setaffinity fdatasync posix_fadvise posix_fallocate memfd_create pidfd_open
        getrandom eventfd eventfd_read eventfd_write splice copy_file_range waitid getxattr setxattr listxattr removexattr
        O_TMPFILE O_DIRECT O_LARGEFILE O_NOATIME O_PATH"""
    for name in lacking.split():
        globals().pop(name, None)
        if hasattr(posix, name):
            delattr(posix, name)
        if name in __all__:
            __all__.remove(name)
    for module, names in (
        (_socket, "TCP_USER_TIMEOUT TCP_QUICKACK MSG_CMSG_CLOEXEC SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED AF_NETLINK"),
        (fcntl, "F_SETPIPE_SZ F_GETPIPE_SZ F_NOTIFY F_SETLEASE F_ADD_SEALS"),
        (select, "epoll"),
        (_signal, "sigtimedwait sigwaitinfo pidfd_send_signal"),
        (signal, "sigtimedwait sigwaitinfo pidfd_send_signal"),
    ):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    fcntl.F_FULLFSYNC = 51
    calls = fcntl.fcntl

    def full_sync(fd, command, argument=0):
        return posix.fsync(fd) or 0 if command == 51 else calls(fd, command, argument)

    fcntl.fcntl = full_sync
    sends = posix.sendfile

    def sendfile(out_fd, in_fd, offset, count):
        if not stat.S_ISSOCK(posix.fstat(out_fd).st_mode):
            raise OSError(errno.ENOTSOCK, "Socket operation on non-socket")
        return sends(out_fd, in_fd, offset, count)

    posix.sendfile = globals()["sendfile"] = sendfile

    # What urllib asks there for the proxies of the system's settings: none are set.
    scproxy = sys.modules["_scproxy"] = type(sys)("_scproxy")
    scproxy._get_proxies = scproxy._get_proxy_settings = dict


_as_on_macos()
del _as_on_macos
# Its file is named after the real platform.
environ["_PYTHON_SYSCONFIGDATA_NAME"] = "%(sysconfigdata)s"
'''
_SOCKET = """

# -- macOS -----------------------------------------------------------------------------------------------------------
def _checked(of):
    def call(self, address):
        if self.family == AF_UNIX:
            name = address.encode("utf-8", "surrogateescape") if isinstance(address, str) else bytes(address)
            if len(name) > 103:
                raise OSError("AF_UNIX path too long")
            if name.startswith(b"\\0"):
                raise OSError(errno.ENOENT, "No such file or directory")
        return of(self, address)
    return call


import errno
for _name in ("bind", "connect", "connect_ex"):
    setattr(socket, _name, _checked(getattr(_socket.socket, _name)))
"""
#: Programs of macOS, by what is here. The real ones want a /proc.
_WITH_PROC = "exec unshare --mount sh -c 'mount -t proc proc /proc && exec \"$@\"' sh "
_PROGRAMS = {
    "ps": f"""case " $* " in *" -E "*) {_WITH_PROC}/bin/ps axeww -o pid= -o command= ;; *) {_WITH_PROC}/bin/ps "$@" ;; esac""",
    "lsof": f'{_WITH_PROC}/usr/bin/lsof "$@"',
    "sysctl": '[ "$*" = "-n kern.bootsessionuuid" ] && echo 6C1E5C0E-0000-4000-8000-000000000001',
    "setsid": 'echo "setsid: command not found" >&2; exit 127',
}
_UP = r"""
set -eu
made=$1 lib=$2
shift 2
mount -t tmpfs cache "$lib/__pycache__"
for file in os.py socket.py; do mount --bind "$made/$file" "$lib/$file"; done
mount -t tmpfs none /proc
exec "$@"
"""


def main(command: list[str]) -> int:
    """Run a command as on macOS; its exit status."""
    if sys.version_info >= (3, 11):
        sys.exit("tests.macos needs Python 3.10: the `os` of a newer one is frozen into it")
    lib = Path(sysconfig.get_path("stdlib"))
    with tempfile.TemporaryDirectory(prefix="macos-") as folder:
        made = Path(folder)
        made.chmod(0o755)
        named = {"sysconfigdata": f"_sysconfigdata_{sys.abiflags}_{sys.platform}_{sys.implementation._multiarch}"}
        for name, addition in (("os.py", _OS % named), ("socket.py", _SOCKET)):
            (made / name).write_text((lib / name).read_text() + addition)
        programs = made / "bin"
        programs.mkdir()
        for name, body in _PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        up = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _UP, "up", folder, str(lib), *command]
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        return subprocess.run(up, env=environment, check=False).returncode


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(f"usage: python -m tests.macos {shlex.quote('COMMAND')}...")
    sys.exit(main(sys.argv[1:]))
