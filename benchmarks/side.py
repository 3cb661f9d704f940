"""One side of a benchmark, in its own process: `python -c "from benchmarks.side import main; main()" MODULE FUNCTION
JSON`.

Rule: the last line on stdout is `RESULT` and JSON. A line `FIRST` before it marks the moment of a first result. The
process has no file as its `__main__`. The application is bench_app, and nothing else is sent to a host.
"""

import importlib
import json
import os
import resource
import sys

__all__ = ["main"]


def main() -> None:
    """Run the function that the arguments name, and print what it measured."""
    module, function, arguments = sys.argv[1:4]
    found = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    found["peak_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("RESULT " + json.dumps(found), flush=True)
    # A peer's exit is not measured, and execnet's clean-up raises after a thousand gateways.
    os._exit(0)
