"""The GPUs of a host, as NVML or `nvidia-smi` shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.system import gpus
from remote_agent.system.gpus import Gpu, GpuProcess, GpuUse, gpu_use, survey
from tests.gpus import FalseGpus

MIB = 1 << 20


@pytest.fixture(params=[True, False], ids=["nvml", "nvidia-smi"])
def driver(request, tmp_path: Path, monkeypatch) -> FalseGpus:
    """A driver, by NVML or by its tool alone."""
    return FalseGpus.make(tmp_path, monkeypatch, nvml=request.param)


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch) -> FalseGpus:
    """A driver with NVML."""
    return FalseGpus.make(tmp_path, monkeypatch)


def test_each_gpu_has_its_memory_and_its_processes(driver):
    """What the driver keeps for itself is not used."""
    driver.write("gpu GPU-a 16384 3", "proc 77 1200", "proc 78 -1", "gpu GPU-b 8192 700")
    assert survey().gpus == [
        Gpu("GPU-a", "False GPU", "", 16384 * MIB, 3 * MIB, [GpuProcess(77, 1200 * MIB), GpuProcess(78, None)]),
        Gpu("GPU-b", "False GPU", "", 8192 * MIB, 700 * MIB, []),
    ]


def test_it_says_where_it_has_that_from(driver):
    """NVML is asked first."""
    driver.write("gpu GPU-a 16384 3")
    assert survey().source == ("nvml" if (driver.folder / "libnvidia-ml.so.1").exists() else "nvidia-smi")


def test_the_instances_of_a_divided_gpu_count_in_its_place(driver):
    """The GPU itself computes nothing then."""
    driver.write("gpu GPU-a 100 1", "gpu GPU-b 100 1", "mig MIG-1 40 30", "mig MIG-2 40 1", "gpu GPU-c 100 1")
    assert [(gpu.uuid, gpu.parent) for gpu in survey().gpus] == [
        ("GPU-a", ""), ("MIG-1", "GPU-b"), ("MIG-2", "GPU-b"), ("GPU-c", ""),
    ]  # fmt: skip


def test_processes_of_an_instance_are_its_own(nvml, monkeypatch):
    """`nvidia-smi` does not tell them apart, so there they are unknown."""
    lines = ["gpu GPU-b 100 1", "mig MIG-1 40 30", "proc 5 20", "mig MIG-2 40 1"]
    nvml.write(*lines)
    assert [gpu.processes for gpu in survey().gpus] == [[GpuProcess(5, 20 * MIB)], []]
    monkeypatch.setattr(gpus, "_LIBRARY", "libnone.so.1")
    assert [gpu.processes for gpu in survey().gpus] == [None, None]


def test_an_early_driver_has_another_question_for_memory(nvml):
    """It is asked that one then."""
    nvml.write("old", "gpu GPU-a 16384 3")
    assert [(gpu.total, gpu.used) for gpu in survey().gpus] == [(16384 * MIB, 3 * MIB)]


def test_a_gpu_that_is_lost_leaves_the_others_their_numbers(nvml):
    """It is named as the reason."""
    nvml.write("gpu GPU-a 1 0", "lost", "gpu GPU-c 1 0")
    found = survey()
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-a", "", "GPU-c"]
    assert found.error == "GPU 1: GPU is lost"


def test_a_gpu_may_have_many_processes(nvml):
    """More than one answer has room for at first."""
    nvml.write("gpu GPU-a 1 0", *(f"proc {pid} 1" for pid in range(1, 181)))
    assert [one.pid for one in survey().gpus[0].processes] == list(range(1, 181))


def test_a_name_that_is_no_uuid_is_not_used(nvml):
    """It would go into a variable, between commas."""
    nvml.write("gpu GPU-a,GPU-b 1 0", "gpu GPU-c 1 0")
    found = survey()
    assert [gpu.uuid for gpu in found.gpus] == ["", "GPU-c"]
    assert "GPU 0: its UUID is" in found.error


def test_a_driver_that_is_not_loaded_says_so(nvml):
    """There are no GPUs then."""
    nvml.write("down")
    assert survey() == ([], "", "Driver Not Loaded")


def test_a_driver_that_hangs_holds_nobody_up(nvml, monkeypatch):
    """The next question waits for the same answer, and no thread is added."""
    monkeypatch.setattr(gpus, "_PATIENCE", 0.05)
    monkeypatch.setattr(gpus._Last, "thread", None)
    nvml.write("hang")
    assert "did not answer" in survey().error
    thread = gpus._Last.thread
    assert "did not answer" in survey().error
    assert gpus._Last.thread is thread


def test_without_a_driver_nothing_is_loaded(tmp_path: Path):
    """`ctypes` takes some milliseconds of a start."""
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(gpus.__file__).parents[2])!r})
os.environ["PATH"] = {str(tmp_path)!r}
from remote_agent.system import gpus
gpus._DEVICES = ()
print(gpus.survey().gpus, "ctypes" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_what_gpus_do_now(nvml, monkeypatch):
    """Of those that are asked for. What the driver does not say, as of an instance of a divided GPU, is not known."""
    nvml.write(
        "gpu GPU-a 16384 300", "busy 40", "gpu GPU-b 100 1", "mig MIG-1 40 30", "gpu GPU-c 8 1", "busy 250", "lost"
    )
    assert gpu_use(["GPU-a", "MIG-1", "GPU-c", "GPU-z"]) == {
        "GPU-a": GpuUse(0.4, 300 * MIB),
        "MIG-1": GpuUse(None, 30 * MIB),
        "GPU-c": GpuUse(None, MIB),
    }
    nvml.write("down")
    assert gpu_use(["GPU-a"]) == {}
    monkeypatch.setattr(gpus, "_LIBRARY", "libnone.so.1")
    assert gpu_use(["GPU-a"]) == {}
