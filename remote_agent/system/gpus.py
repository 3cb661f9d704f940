"""The GPUs of a host, what they are used for, and by whom: from NVML, or from `nvidia-smi` if NVML cannot be loaded.

Rule: reading changes nothing, and waits no longer than a moment for a driver that hangs. A divided GPU counts as its MIG instances.
"""

import os
import re
import shutil
import threading
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

__all__ = ["Gpu", "GpuProcess", "GpuUse", "Survey", "gpu_use", "survey"]

#: One of them is there where a driver is; the second one in WSL. Where none is, NVML is not looked for: `ctypes` alone takes some milliseconds.
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
_TOOL = "nvidia-smi"

#: Seconds. A driver that answers later than that has most likely lost a GPU.
_PATIENCE = 15.0
_LIBRARY = "libnvidia-ml.so.1"
_INSUFFICIENT_SIZE = 7
#: What NVML says where it does not know a size.
_NOT_AVAILABLE = (1 << 64) - 1
_UUID = re.compile(r"[A-Za-z0-9/-]{1,80}")


class GpuProcess(NamedTuple):
    """A process that computes on a GPU. `used`: bytes; None if unknown."""

    pid: int
    used: Optional[int]


class Gpu(NamedTuple):
    """A GPU, or a MIG instance of one.

    Attributes:
        uuid: empty if the GPU cannot be read. It keeps its place, so that the numbers of the others stay.
        parent: the UUID of the divided GPU, for a MIG instance; else empty.
        total, used: bytes of memory; None if unknown.
        processes: those that compute on it; None if unknown.
    """

    uuid: str
    name: str
    parent: str
    total: Optional[int]
    used: Optional[int]
    processes: Optional[List[GpuProcess]]


class Survey(NamedTuple):
    """The GPUs in the order of their numbers. `source`: `nvml`, `nvidia-smi` or empty. `error`: what could not be read."""

    gpus: List[Gpu]
    source: str
    error: str


_LOST = Gpu("", "", "", None, None, None)


class GpuUse(NamedTuple):
    """What a GPU does now. `share`: of the last moment, in which it worked, from 0 to 1. `used`: bytes of memory. None where the driver does not say."""

    share: Optional[float]
    used: Optional[int]


class _NvmlError(Exception):
    """NVML cannot be loaded, or a call failed."""


class _Last:
    """The thread of the last survey: the driver may not have answered it yet."""

    thread: Optional[threading.Thread] = None


def survey() -> Survey:
    """Read the GPUs and what they are used for. Without a driver there are none."""
    if shutil.which(_TOOL) is None and not any(map(os.path.exists, _DEVICES)):
        return Survey([], "", "no NVIDIA driver")
    late = Survey([], "", "the driver did not answer within {:.0f} s".format(_PATIENCE))
    if _Last.thread is not None:
        _Last.thread.join(_PATIENCE)
        if _Last.thread.is_alive():
            return late
    found: List[Survey] = []
    # In a thread, because a call into a driver that hangs cannot be ended.
    thread = _Last.thread = threading.Thread(target=lambda: found.append(_survey()), name="gpus", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return found[0] if found else late


def gpu_use(uuids: Iterable[str]) -> Dict[str, GpuUse]:
    """Read what these GPUs do now, from NVML alone. It may wait for a driver that hangs."""
    try:
        return _Nvml().use(uuids)
    except (_NvmlError, ImportError):
        return {}


def _survey() -> Survey:
    try:
        return _Nvml().survey()
    except (_NvmlError, ImportError) as error:
        return _from_nvidia_smi() or Survey([], "", str(error))


# -- NVML ------------------------------------------------------------------------------------------------------------


class _Nvml:
    """NVML, loaded for one survey. It is shut down after it, so that this process keeps no driver busy."""

    def __init__(self) -> None:
        import ctypes

        self._ctypes = ctypes
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise _NvmlError(str(error)) from None

    def survey(self) -> Survey:
        """Read every GPU.

        Raises:
            _NvmlError: there is no driver.
        """
        self._call("nvmlInit_v2")
        try:
            gpus, errors = [], []
            for number in range(self._int("nvmlDeviceGetCount_v2")):
                try:
                    handle = self._handle("nvmlDeviceGetHandleByIndex_v2", self._ctypes.c_uint(number))
                    gpus += list(self._gpus(handle))
                except _NvmlError as error:
                    # A GPU that is lost takes no job, and no other GPU with it.
                    gpus.append(_LOST)
                    errors.append("GPU {}: {}".format(number, error))
            return Survey(gpus, "nvml", "; ".join(errors))
        finally:
            self._library.nvmlShutdown()

    def use(self, uuids: Iterable[str]) -> Dict[str, GpuUse]:
        """Read what these GPUs do. One that cannot be read is left out.

        Raises:
            _NvmlError: there is no driver.
        """
        self._call("nvmlInit_v2")
        found = {}
        try:
            for uuid in uuids:
                try:
                    handle = self._handle("nvmlDeviceGetHandleByUUID", uuid.encode("ascii"))
                except _NvmlError:
                    continue
                memory = self._memory(handle)
                found[uuid] = GpuUse(self._share(handle), memory and memory[1])
            return found
        finally:
            self._library.nvmlShutdown()

    def _share(self, handle: Any) -> Optional[float]:
        """The share of the last moment in which it worked. Instances of a divided GPU have none."""
        percent = (self._ctypes.c_uint * 2)()
        try:
            self._call("nvmlDeviceGetUtilizationRates", handle, percent)
        except _NvmlError:
            return None
        return percent[0] / 100.0 if percent[0] <= 100 else None

    def _gpus(self, handle: Any) -> Iterator[Gpu]:
        """The GPU itself, or the instances of a divided one: without any it computes nothing."""
        if not self._is_divided(handle):
            yield self._gpu(handle, "")
            return
        parent = self._text("nvmlDeviceGetUUID", handle)
        for number in range(self._int("nvmlDeviceGetMaxMigDeviceCount", handle)):
            try:
                instance = self._handle("nvmlDeviceGetMigDeviceHandleByIndex", handle, self._ctypes.c_uint(number))
            except _NvmlError:
                continue  # no instance has this number
            yield self._gpu(instance, parent)

    def _is_divided(self, handle: Any) -> bool:
        mode, pending = self._ctypes.c_uint(), self._ctypes.c_uint()
        try:
            self._call("nvmlDeviceGetMigMode", handle, self._ctypes.byref(mode), self._ctypes.byref(pending))
        except _NvmlError:
            return False  # this GPU, or this driver, has no such mode
        return mode.value == 1

    def _gpu(self, handle: Any, parent: str) -> Gpu:
        memory = self._memory(handle)
        uuid = self._text("nvmlDeviceGetUUID", handle)
        if not _UUID.fullmatch(uuid):
            raise _NvmlError("its UUID is {!r}".format(uuid))
        return Gpu(
            uuid,
            self._text("nvmlDeviceGetName", handle),
            parent,
            memory and memory[0],
            memory and memory[1],
            self._processes(handle),
        )

    def _memory(self, handle: Any) -> Any:
        """Total and used bytes. The newer call leaves out what the driver keeps for itself, which may be over 500 MiB."""
        numbers = (self._ctypes.c_ulonglong * 5)()
        # An unsigned int, then four sizes that begin at a multiple of eight bytes.
        numbers[0] = self._ctypes.sizeof(numbers) | 2 << 24
        try:
            self._call("nvmlDeviceGetMemoryInfo_v2", handle, numbers)
            return numbers[1], numbers[4]
        except _NvmlError:
            pass  # an older driver
        try:
            self._call("nvmlDeviceGetMemoryInfo", handle, numbers)
        except _NvmlError:
            return None
        return numbers[0], numbers[2]

    def _processes(self, handle: Any) -> Optional[List[GpuProcess]]:
        ctypes = self._ctypes

        class Info(ctypes.Structure):  # type: ignore[misc, name-defined]
            _fields_ = (("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint))  # fmt: skip

        kind: Any = Info
        room = 64
        while room <= 1 << 16:
            infos, count = (kind * room)(), ctypes.c_uint(room)
            for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
                function = getattr(self._library, name, None)
                if function is None:
                    continue
                code = function(handle, ctypes.byref(count), infos)
                if code == 0:
                    return [
                        GpuProcess(one.pid, None if one.used == _NOT_AVAILABLE else one.used)
                        for one in infos[: count.value]
                    ]
                if code != _INSUFFICIENT_SIZE:
                    return None
                break
            else:
                return None
            room *= 4
        return None

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise _NvmlError("this driver has no {}".format(name))
        code = function(*arguments)
        if code:
            self._library.nvmlErrorString.restype = self._ctypes.c_char_p
            said = self._library.nvmlErrorString(code) or b""
            raise _NvmlError(said.decode("utf-8", "replace") or "error {} of {}".format(code, name))

    def _int(self, name: str, *arguments: Any) -> int:
        number = self._ctypes.c_uint()
        self._call(name, *arguments, self._ctypes.byref(number))
        return int(number.value)

    def _handle(self, name: str, *arguments: Any) -> Any:
        handle = self._ctypes.c_void_p()
        self._call(name, *arguments, self._ctypes.byref(handle))
        return handle

    def _text(self, name: str, handle: Any) -> str:
        text = self._ctypes.create_string_buffer(96)
        self._call(name, handle, text, self._ctypes.c_uint(96))
        return text.value.decode("utf-8", "replace")


# -- nvidia-smi ------------------------------------------------------------------------------------------------------


def _from_nvidia_smi() -> Optional[Survey]:
    """What `nvidia-smi` says; None if it says nothing. What instances of a divided GPU are used for is unknown."""
    listed = _nvidia_smi("-L")
    if listed is None:
        return None
    gpus: List[Gpu] = []
    instances: Dict[str, List[Gpu]] = {}
    for line in listed:
        found = re.search(r"(?:\d+: *(.*?) *)?\(UUID: ([A-Za-z0-9/-]{1,80})\)", line)
        if not found:
            continue
        if line.lstrip().startswith("MIG") and gpus:
            parent = gpus[-1].uuid
            instances.setdefault(parent, []).append(Gpu(found.group(2), line.split("(")[0].strip(), parent, None, None, None))  # fmt: skip
        else:
            gpus.append(Gpu(found.group(2), found.group(1) or "", "", None, None, None))
    memory = {one[0]: (_mebibytes(one[1]), _mebibytes(one[2])) for one in _rows("gpu=uuid,memory.total,memory.used", 3)}
    processes: Dict[str, List[GpuProcess]] = {uuid: [] for uuid in memory}
    for uuid, pid, used in _rows("compute-apps=gpu_uuid,pid,used_memory", 3):
        if uuid in processes and pid.isdigit():
            processes[uuid].append(GpuProcess(int(pid), _mebibytes(used)))
    whole = [
        one._replace(total=memory[one.uuid][0], used=memory[one.uuid][1], processes=processes[one.uuid])
        if one.uuid in memory
        else one
        for one in gpus
    ]
    return Survey([each for one in whole for each in instances.get(one.uuid, [one])], "nvidia-smi", "")


def _rows(query: str, width: int) -> List[List[str]]:
    lines = _nvidia_smi("--query-" + query, "--format=csv,noheader,nounits") or []
    rows = [[field.strip() for field in line.split(",")] for line in lines]
    return [row for row in rows if len(row) == width and _UUID.fullmatch(row[0])]


def _mebibytes(text: str) -> Optional[int]:
    return int(text) << 20 if text.isdigit() else None


def _nvidia_smi(*arguments: str) -> Optional[List[str]]:
    from remote_agent.shared.subprocesses import answer_of

    done = answer_of([_TOOL, *arguments], timeout=_PATIENCE, env=dict(os.environ, LC_ALL="C"))
    return None if done is None or done.returncode else done.stdout.decode("utf-8", "replace").splitlines()
