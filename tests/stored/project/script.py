"""A run from Python: python script.py NAME HOST RUN_FOLDER N... The task, a callback and what it decorates go by value."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telling import ROOT, Telling, tell, wait_for

import launcher


@dataclass
class Conf:
    """The config of a job."""

    n: int = 0
    gate: str = ""


def make_task(power: int, *, is_oldest: bool) -> Any:
    """A function that no host can import: it closes over `power`."""

    def raised(n: int) -> int:
        return int(n**power)

    def checked(value: Any) -> Any:
        return value

    if not is_oldest:
        raised = functools.lru_cache(maxsize=None)(raised)
        checked = functools.singledispatch(checked)

    def task(cfg: Any) -> dict[str, int]:
        tell(f"ran {cfg.n}")
        print(f"job with n={cfg.n}")
        wait_for(f"{cfg.gate}.{cfg.n}" if cfg.gate else "")
        if cfg.n < 0:
            raise ValueError(f"n={cfg.n} is negative")
        return {"square": raised(checked(cfg.n))}

    return task


def make_callback(*, is_oldest: bool) -> Any:
    """A callback of a class that no host can import."""

    class ByValue(launcher.Callback):
        """Tells what it was made with."""

        def __init__(self, text: str) -> None:
            self.text = text

        def on_job_start(self, config: Any, **kwargs: Any) -> None:
            tell(f"by value {config.n} {self.text}")

        def measured(self) -> int:
            return len(self.text)

        length: Any = property(measured) if is_oldest else functools.cached_property(measured)

    return ByValue("made in the script")


def main() -> None:
    """Run the jobs, and keep the JobReturns in a pickle."""
    name, host, folder, *numbers = sys.argv[1:]
    gate = str(ROOT / f"gate-{name}") if name.startswith("killed") else ""
    configs = [Conf(int(n), gate) for n in numbers]
    more = {} if host == "local" else {"ssh_config": str(ROOT / "ssh_config")}
    # The oldest version named the folder otherwise, and could send nothing that `functools` makes by value.
    is_oldest = "sweep_dir" in inspect.signature(launcher.multirun).parameters
    returns = launcher.multirun(
        make_task(2, is_oldest=is_oldest),
        configs,
        hosts=[{"name": host, "slots": 1, "python": str(ROOT / "bin/python3"), **more}],
        callbacks=[
            Telling(),
            make_callback(is_oldest=is_oldest),
            launcher.PickleJobInfoCallback(),
            launcher.LogJobReturnCallback(),
        ],
        **{"sweep_dir" if is_oldest else "folder": folder},
    )
    Path(folder, "returns.pickle").write_bytes(pickle.dumps(list(returns)))


if __name__ == "__main__":
    main()
