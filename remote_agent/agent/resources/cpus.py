"""The CPUs to which a run's jobs are kept, so that the jobs of several runs do not crowd on the first ones.

Rule: a CPU is named on this machine while a job is kept to it: by a Unix socket without a file, which the kernel frees with this process.
Any run of ours, of any user, sees the name, and takes a CPU without one first. If all have one, jobs share CPUs with those of another
run, but never with one of their own. (A name is known in one network namespace: a container's own is invisible outside.)
"""

import socket
from typing import Dict, List, Optional

__all__ = ["NAME", "Cpus"]

#: The name of a CPU; the first byte means that there is no file.
NAME = "\0hydra-remote-launcher/cpu/{}"


class Cpus:
    """CPUs by number; none if the system does not keep processes to CPUs."""

    def __init__(self, cpus: List[int]) -> None:
        self._free = list(cpus)
        #: Those that jobs have, each with its name; None if another run has that.
        self._taken: Dict[int, Optional[socket.socket]] = {}

    def take(self, count: int) -> List[int]:
        """Take as many CPUs for a job; none if there are not as many, and then it may run on all."""
        for cpu, name in self._taken.items():
            if name is None:
                # The other run may be gone.
                self._taken[cpu] = _name(cpu)
        if count > len(self._free):
            return []
        named: List[int] = []
        others: List[int] = []
        for cpu in self._free:
            if len(named) == count:
                break
            name = _name(cpu)
            (others if name is None else named).append(cpu)
            if name is not None:
                self._taken[cpu] = name
        # Of those that other runs have, take the last ones: whoever came first began with the first ones.
        shared = others[len(others) - (count - len(named)) :]
        self._taken.update(dict.fromkeys(shared))
        taken = sorted(named + shared)
        self._free = [cpu for cpu in self._free if cpu not in taken]
        return taken

    def hold(self, cpus: List[int]) -> None:
        """Count CPUs as taken that a job of an earlier agent has."""
        for cpu in cpus:
            if cpu in self._free:
                self._free.remove(cpu)
                self._taken[cpu] = _name(cpu)

    def release(self, cpus: List[int]) -> None:
        """Give back the CPUs of a job that has ended."""
        for cpu in cpus:
            name = self._taken.pop(cpu, None)
            if name is not None:
                name.close()
        self._free = sorted([*self._free, *cpus])

    def close(self) -> None:
        """Give back all names."""
        for name in self._taken.values():
            if name is not None:
                name.close()


def _name(cpu: int) -> Optional[socket.socket]:
    """Return the name of a CPU, which lasts until it is closed; None if another run has it."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(NAME.format(cpu))
    except OSError:
        name.close()
        return None
    return name
