# mypy: ignore-errors
# What stage-0 runs on a host, sent as text on the command line (`launcher.bootstrap.start.stage0_command`). It is never imported.
# Rule: short (every connection sends it, every `ps` there shows it); standard library only; Python 2 grammar (an old
# python must get as far as the version check); file descriptor 0 is read with os.read alone: a buffered reader would
# swallow the first frame. What is needed only where the bundle is absent comes with the bundle: `stage0_unpack.py`.
# If a fork server waits there (`remote_agent.agent.fork_server`), it forks what this would become, and this waits for it.
import os
import sys

if sys.version_info < (3, 8):
    sys.exit(87)


def fail(text):
    sys.stderr.write("hydra-remote-launcher: " + text + "\n")
    sys.exit(EXIT_FOLDERS)


def ours(path, is_made=True):
    if is_made and not os.path.lexists(path):
        os.makedirs(path, 0o700, True)
    status = os.lstat(path)
    if status.st_mode & 0o170000 != 0o040000:
        fail(path + " is not a folder")
    if status.st_uid != os.geteuid():
        fail(path + " belongs to another user")
    if status.st_mode & 0o022:
        fail(path + " can be written by others")
    return path


def receive(missing):
    os.write(1, NEED)
    parts = []
    while missing:
        part = os.read(0, min(missing, 1 << 18))
        if not part:
            sys.exit(74)
        parts.append(part)
        missing -= len(part)
    data = b"".join(parts)
    import hashlib
    import io
    import zipfile

    if hashlib.sha256(data).hexdigest() != SHA256:
        fail("the bundle arrived damaged")
    return zipfile.ZipFile(io.BytesIO(data))


def forked(base, umask):
    if ROLE[0] != "connect" or "--batch" in ROLE or "--cold" in ROLE:
        return None
    name = "agent-%s-%08x-" % (SHA256[:16], zlib.crc32(os.fsencode(sys.executable)))
    folder = os.path.join(base, "warm")
    for path in [os.path.join(folder, boot) for boot in os.listdir(folder)]:
        for one in os.listdir(ours(path, False)):
            if one.startswith(name) and one.endswith(".sock"):
                code = ask(path, one, umask)
                if code is not None:
                    return code
    return None


def ask(path, name, umask):
    import _socket

    told = repr((list(ROLE), umask, dict(os.environb))).encode()
    told = b"%08x" % len(told) + told
    fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in range(3))
    folder = os.open(path, os.O_RDONLY)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    sock.settimeout(2)
    try:
        sock.connect("/proc/self/fd/%d/%s" % (folder, name))
        sent = sock.sendmsg([told], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        if sent < len(told) or sock.recv(1) != b"y":
            return None
        sock.send(b"g")
    except OSError:
        return None
    finally:
        os.close(folder)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    sock.settimeout(None)
    try:
        return ord(sock.recv(1))
    except (OSError, TypeError):  # nothing came: it has been killed
        return 70


def main():
    umask = os.umask(0o077)
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty one would mean /
    base = WORKDIR and os.path.join(os.path.expanduser(WORKDIR), "cache")
    if not base:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the specification has a relative one ignored
            base = os.path.join(os.path.expanduser("~"), ".cache")
        base = os.path.join(base, "hydra-remote-launcher")
    if not os.path.isabs(base):
        fail("no home folder (name a folder that can be written with 'workdir')")
    try:
        agents = ours(os.path.join(ours(base), "agents"))
        parent = os.path.dirname(base)
        if os.stat(parent).st_mode & 0o1002 == 2:
            fail("everybody can write to " + parent + ", and could replace its content")
        target = os.path.join(agents, SHA256)
        if not os.path.lexists(target):
            bundle = receive(SIZE)
            exec(bundle.read("stage0_unpack.py"), {"bundle": bundle, "agents": agents, "target": target})
        ours(target, False)
    except OSError as error:
        place = "%s: %s" % (error.filename or base, error.strerror)
        fail("cannot write to " + place + " (name a folder that can be written with 'workdir')")
    try:
        code = forked(base, umask)
    except OSError:
        code = None  # nothing waits, or it has just ended
    if code is not None:
        return code
    sys.path.insert(0, target)
    sys.argv = ["hydra-remote-launcher"] + list(ROLE)
    sys.dont_write_bytecode = True
    from remote_agent.system.bytecode import keep_bytecode_whole

    keep_bytecode_whole()
    from remote_agent.__main__ import main

    os.umask(umask)
    return main(list(ROLE))


code = main()
# 2, 87, 126 and 127 mean to the shell around this that the python was unfit, and the next one is tried.
sys.exit(70 if code in (2, 87, 126, 127) else code)
