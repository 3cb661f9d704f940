"""A job of several processes on a Slurm cluster, which find each other as those of torch.distributed and MPI do:
`launcher run examples/ranks.py:train port=29500 --host slurm://login --resources nodes=2 --resources tasks=4`.
"""

import json
import os
import socket
import subprocess
import sys
import time


def train(cfg):
    """The job runs once, on the first node. It starts one process for each task."""
    step = ["srun", "--mpi=none", sys.executable, __file__, str(cfg.port)]
    return json.loads(subprocess.run(step, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main(port):
    rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    address = (os.environ["SLURM_LAUNCH_NODE_IPADDR"], port)  # of the first node, where rank 0 is
    own = {"rank": rank, "node": os.environ["SLURMD_NODENAME"], "local": int(os.environ["SLURM_LOCALID"])}
    if rank:
        with reach(address) as sock:
            sock.sendall(json.dumps(own).encode())
        return
    everybody = [own]
    with socket.create_server(("", port)) as server:
        while len(everybody) < size:
            sock, _ = server.accept()
            with sock, sock.makefile() as file:
                everybody.append(json.load(file))
    print(json.dumps(sorted(everybody, key=lambda one: one["rank"])))


def reach(address):
    """Connect to rank 0, which may start later."""
    for _ in range(600):
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError(f"rank 0 does not listen on {address}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
