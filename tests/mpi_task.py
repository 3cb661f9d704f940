"""A job that starts an MPI program on all nodes of its allocation: each rank says where it is, and what all ranks together have summed up.

Hosts have this file and Open MPI, and no package of the tests'. It speaks to Open MPI's library itself.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Any


def train(cfg: Any) -> list[str]:
    """The job runs once. It starts a rank for each task, as the config says: by `mpirun`, or by `srun`."""
    command = [*cfg.command, sys.executable, os.path.abspath(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-3000:]}")
    return sorted(done.stdout.splitlines())


def main() -> None:
    """What a rank does."""
    mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
    mpi.MPI_Init(None, None)
    world = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_comm_world"))
    rank, size, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    mpi.MPI_Comm_rank(world, ctypes.byref(rank))
    mpi.MPI_Comm_size(world, ctypes.byref(size))
    own = ctypes.c_int(10**rank.value)
    integers = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_int"))
    addition = ctypes.byref(ctypes.c_char.in_dll(mpi, "ompi_mpi_op_sum"))
    mpi.MPI_Allreduce(ctypes.byref(own), ctypes.byref(total), 1, integers, addition, world)
    print(f"{rank.value}/{size.value} on {os.environ.get('SLURMD_NODENAME', '')}: {total.value}", flush=True)
    mpi.MPI_Finalize()


if __name__ == "__main__":
    main()
