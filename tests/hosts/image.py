"""Hosts from the file system of docker/Dockerfile: the most honest ones, with nothing of this machine but its kernel.

Rule: such a host shares no file and no process with the controller. Its root is an overlay on the image, its `/tmp` and
`/run` are its own, its process 1 is what the image's entrypoint becomes, and it has a boot id of its own. Only the
network is this machine's, so it listens on a port of 127.0.0.1.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.openssh import OpenSshHost
from tests.requirements import need_programs, need_root

__all__ = ["ImageHost", "image_rootfs", "running_image_host"]

_REPOSITORY = Path(__file__).resolve().parent.parent.parent
#: Outlives a session of tests: the image takes a minute and a half to build, and is keyed by what it is made of.
_CACHE = Path.home() / ".cache" / "hydra-remote-launcher-tests"

_UNSHARE = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private")
#: Arguments: root fs, the host's folder (disk and work of the overlay, root, boot id), its name, then the entrypoint's.
_UP = r"""
set -eu
rootfs=$1 folder=$2 name=$3
shift 3
hostname "$name"
mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$folder/disk,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount --bind "$folder/boot_id" proc/sys/kernel/random/boot_id
mount -t tmpfs -o mode=0755 dev dev
for node in null zero full random urandom tty; do
    : > "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=0755 run run
mkdir run/old
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old
entrypoint=$(cat /.entrypoint)
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$entrypoint" "$@"
"""


def image_rootfs() -> Path:
    """The image's file system; built when it is not there yet, which takes a minute and a half.

    Skips the test, or fails it in .ci/run, where the parts to build it are missing.
    """
    need_root()
    need_programs("debootstrap", "podman", "buildah", "unshare", "nsenter")
    built = subprocess.run(
        [str(_REPOSITORY / "docker" / "build_rootfs"), str(_CACHE)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert built.returncode == 0, f"docker/build_rootfs failed:\n{built.stderr[-4000:]}"
    return Path(built.stdout.strip().splitlines()[-1])


class ImageHost(OpenSshHost):
    """One host from the image; what can be done with it is what can be done with any OpenSshHost.

    It makes its own host key at its first start, so `known_hosts` is empty until then.
    """

    def __init__(self, folder: Path, name: str = "image-host") -> None:
        self.rootfs = image_rootfs()
        super().__init__(folder, name, key_types=())
        self.uid = int(self._line_of("etc/passwd").split(":")[2])
        self.home = folder / "disk" / "home" / self.user
        for each in ("disk", "work", "root"):
            (folder / each).mkdir()
        shutil.copy(f"{self.identity}.pub", folder / "disk" / "authorized_keys")

    def _write_etc(self, shell: str, settings: Sequence[str]) -> None:
        """The image has users and an sshd_config of its own."""

    def _line_of(self, file: str) -> str:
        lines = (self.rootfs / file).read_text().splitlines()
        return next(line for line in lines if line.startswith(f"{self.user}:"))

    def start(self) -> None:
        """Boot it, and wait until it answers."""
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        up = ["sh", "-c", _UP, "up", str(self.rootfs), str(self.folder), self.name]
        sshd = ["-p", str(self.port), "-o", "ListenAddress=127.0.0.1"]
        with self.log.open("ab") as log:
            self._unshare = subprocess.Popen([*_UNSHARE, *up, *sshd], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_answering()
        # The host's own key, read from its disk and not from the network.
        self.host_keys = [self.path("/etc/ssh/host_keys/ssh_host_ed25519_key")]
        self._write_client()

    def _wait_answering(self) -> None:
        # A connection is refused until sshd listens; the kernel says so, and there is nothing to wait on but trying.
        assert self._unshare is not None
        while True:
            with socket.socket() as probe:
                probe.settimeout(5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    assert probe.recv(4) == b"SSH-"
                    return
            try:
                self._unshare.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the host did not come up:\n{self.log.read_text()}")


@contextmanager
def running_image_host(folder: Path, name: str = "image-host") -> Iterator[ImageHost]:
    """A host that is up, and gone with all its processes at the end. `folder` must not exist yet, or be empty."""
    host = ImageHost(folder, name)
    try:
        host.start()
        yield host
    finally:
        host.power_cut()
