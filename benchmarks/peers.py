"""The peers' sides. Each function does the work once in a fresh process, and returns what it measured as plain data.

Rule: the clock starts before the first call into the peer and stops when the last result is there. Imports of the peer
do not count, except where the time from command start is measured (`first_*`).
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any


def pool(jobs: int) -> dict[str, Any]:
    """A local multiprocessing.Pool(2, maxtasksperchild=1): a process per job, no SSH, no hooks, nothing durable."""
    import multiprocessing

    from bench_app import plain_noop

    context = multiprocessing.get_context("fork")
    begun, cpu = time.perf_counter(), sum(os.times()[:4])
    with context.Pool(2, maxtasksperchild=1) as workers:
        done = sum(1 for _ in workers.imap_unordered(plain_noop, range(jobs), chunksize=1))
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "jobs": done, "cpu": sum(os.times()[:4]) - cpu}


def submitit_array(jobs: int, folder: str) -> dict[str, Any]:
    """submitit: an array with a Slurm job for each of ours, submitted on the login node itself."""
    import submitit
    from bench_app import plain_noop

    begun = time.perf_counter()
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(time=10, cpus_per_task=1, array_parallelism=jobs)
    found = executor.map_array(plain_noop, range(jobs))
    for one in found:
        one.result()
    return {"seconds": time.perf_counter() - begun, "jobs": jobs}


def execnet_jobs(jobs: int, ssh: str) -> dict[str, Any]:
    """execnet: one ssh gateway, and through it a fresh interpreter (`popen//via`) per job, two at a time."""
    import execnet

    begun = time.perf_counter()
    group = execnet.Group()
    group.makegateway(f"{ssh}//id=host")

    def one(number: int) -> None:
        gateway = group.makegateway(f"popen//via=host//id=job{number}")
        gateway.remote_exec("channel.send(None)").receive()
        gateway.exit()

    _two_at_a_time(jobs, one)
    return {"seconds": time.perf_counter() - begun, "jobs": jobs}


def execnet_first(ssh: str) -> dict[str, Any]:
    """execnet: import, one ssh gateway, one result. The parent process has the clock."""
    import execnet

    gateway = execnet.makegateway(ssh)
    gateway.remote_exec("channel.send(None)").receive()
    _say_first()
    gateway.exit()
    return {}


def mitogen_jobs(jobs: int, ssh: dict[str, Any]) -> dict[str, Any]:
    """mitogen: one ssh context, and a fork of it per job, two at a time."""
    import mitogen.master
    import mitogen.utils
    from bench_app import plain_noop

    mitogen.utils.log_to_file(level="ERROR")
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    try:
        begun = time.perf_counter()
        host = router.ssh(**ssh)

        def one(number: int) -> None:
            job = router.fork(via=host)
            job.call(plain_noop, number)
            job.shutdown(wait=False)

        _two_at_a_time(jobs, one)
        seconds = time.perf_counter() - begun
    finally:
        broker.shutdown()
        broker.join()
    return {"seconds": seconds, "jobs": jobs}


def paramiko_bulk(size: int, port: int, user: str, identity: str) -> dict[str, Any]:
    """A bare paramiko channel: `head -c SIZE /dev/zero` read in 256 KiB pieces on a warm connection."""
    import socket

    import paramiko

    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock)
    options = transport.get_security_options()
    options.ciphers = ("aes128-gcm@openssh.com", *[name for name in options.ciphers if "gcm" not in name])
    transport.connect(username=user, pkey=paramiko.Ed25519Key.from_private_key_file(identity))
    transport.open_session().close()
    begun = time.perf_counter()
    channel = transport.open_session()
    channel.exec_command(f"head -c {size} /dev/zero")
    left = size
    while left:
        data = channel.recv(256 * 1024)
        if not data:
            raise SystemExit(f"the channel ended {left} bytes early")
        left -= len(data)
    seconds = time.perf_counter() - begun
    cipher = transport.remote_cipher
    transport.close()
    return {"seconds": seconds, "bytes": size, "cipher": cipher}


def _two_at_a_time(jobs: int, one: Callable[[int], None]) -> None:
    numbers = iter(range(jobs))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                one(number)
            except BaseException as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _say_first() -> None:
    print("FIRST", flush=True)
