"""Finds the job to run again, by its run and number, its folder, or a pickle of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.errors import UsageError
from launcher.reproduce.from_files import from_pickle, from_yaml, has_yaml
from launcher.reproduce.from_journal import recorded, recorded_at
from launcher.reproduce.target import Target
from launcher.runs import index
from launcher.runs.journal import FOLDER, JournalReader
from launcher.util.text.terminal_text import clean_line

__all__ = ["find_target"]

_YAML = ("config.yaml", "hydra.yaml", "overrides.yaml")
_PICKLES = (".pickle", ".pkl")


def find_target(
    text: str, *, app: str | None = None, env: Mapping[str, str] | None = None, results: str = "safe"
) -> Target:
    """Find the job that `RUN#NUM`, a job's output directory, its `config.pickle` or its `job_return.pickle` names.

    Args:
        app: the application, if no record says which it is; as for `launcher run`.
        env: values of the job's variables. Others are taken from the environment.
        results: the policy for decoding a recorded value to compare it.

    Raises:
        UsageError: there is no such job, or the application cannot be found.
        RunError: there is no such run, or its record cannot be read.
    """
    path = Path(text)
    if path.name in _YAML and path.is_file():
        path = path.parent
    if path.is_dir():
        # The path may be written in any way, such as by a link or with `..`.
        folder = path.resolve()
        found = recorded_at(folder, env, results)
        if found is None and has_yaml(folder):
            # The user may also name the folder with Hydra's files.
            found = recorded_at(folder.parent, env, results)
        return found if found is not None else from_yaml(folder, app)
    if path.is_file():
        if path.suffix not in _PICKLES:
            raise UsageError(
                f"{clean_line(path)} is not called {' or '.join(_PICKLES)}: a pickle can run any code, so a file is "
                "opened as one only if its name says so"
            )
        path = path.resolve()
        found = recorded_at(path.parent, env, results) or recorded_at(path.parent.parent, env, results)
        return from_pickle(path, app, found)
    reference = index.parse(text)
    num = _only_job(reference.entry) if reference.num is None else reference.num
    if num is None:
        raise UsageError(f"{text!r} is a run; which of its jobs? Say {text}#0, or name a job's output directory")
    return recorded(reference.entry, num, env, results)


def _only_job(entry: index.Entry) -> int | None:
    """Return the job of a run that has only one."""
    with JournalReader(entry.folder / FOLDER) as reader:
        return reader.last_num() if reader.count_jobs() == 1 else None
