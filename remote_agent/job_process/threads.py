"""How many threads the numerical libraries of a job start, if that is another number than its zygote's.

Rule: the user's word counts. A library that is imported in the job reads its variable. One that the zygote has imported read it before,
and is told by threadpoolctl, if the jobs' Python has that.
"""

import importlib
import os
import sys
from typing import Dict, Optional

from remote_agent.protocol.constants import THREADS

__all__ = ["limit_loaded", "without_users"]


def without_users(variables: Dict[str, Optional[str]], threads: int) -> Dict[str, Optional[str]]:
    """Return the variables without those for threads that have another value here than the agent gave: a `setup` line set them.

    Args:
        threads: the number that the agent gave; 0 for none.
    """
    return {
        name: value
        for name, value in variables.items()
        if name not in THREADS or os.environ.get(name) in (None, str(threads))
    }


def limit_loaded(variables: Dict[str, Optional[str]]) -> None:
    """Tell libraries that are imported already of the number of threads in these variables."""
    count = next((value for name, value in variables.items() if name in THREADS and value), None)
    if count is None:
        return
    numexpr = sys.modules.get("numexpr")
    if numexpr is not None:
        numexpr.set_num_threads(int(count))
    if "numpy" in sys.modules or "torch" in sys.modules:
        try:
            threadpoolctl = importlib.import_module("threadpoolctl")
        except ImportError:
            return
        threadpoolctl.threadpool_limits(limits=int(count))
