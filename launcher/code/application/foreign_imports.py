"""Whether an import failed for want of something that is not the project's, such as a package that only hosts have.

Rule: an error of the project's own code is refused here, before anything is sent. Only what another machine may have is left to it.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
from pathlib import Path

__all__ = ["is_foreign_failure"]


def is_foreign_failure(error: BaseException, root: Path) -> bool:
    """Whether importing code of a project failed because of a module that is not the project's.

    That is an ImportError that names no module of the project, or anything that is raised below the project's import of another module,
    as an OSError of a library that is not here.

    Args:
        root: the folder that is first on `sys.path` for the project.
    """
    if isinstance(error, ImportError):
        if error.name:
            return not _is_of_project(error.name, root)
        return "relative import" not in str(error)
    place = _last_place_in(error, root)
    return place is not None and any(not _is_of_project(name, root) for name in _imported_at(*place))


def _is_of_project(module: str, root: Path) -> bool:
    return importlib.machinery.PathFinder.find_spec(module.partition(".")[0], [str(root)]) is not None


def _last_place_in(error: BaseException, root: Path) -> tuple[str, int] | None:
    """The file and line of the project's code that was reached last."""
    below = os.path.realpath(root) + os.sep
    place = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.realpath(file).startswith(below):
            place = file, trace.tb_lineno
        trace = trace.tb_next
    return place


def _imported_at(file: str, line: int) -> list[str]:
    """The modules that the statement at a line imports; none if it is another statement."""
    try:
        tree = ast.parse(Path(file).read_bytes(), file)
    except (OSError, SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node.lineno <= line <= (node.end_lineno or node.lineno):
            if isinstance(node, ast.Import):
                return [alias.name for alias in node.names]
            return [node.module] if node.module and not node.level else []
    return []
