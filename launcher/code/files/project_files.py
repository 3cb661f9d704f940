"""Which files are a project's code, by name.

Rule: in a git work tree these are the tracked files as they are now, and the untracked files that git does not ignore, those of
submodules included. Elsewhere they are the files of the application's folder that its `.gitignore` files do not name. A
`.launcherignore` (gitignore's syntax, in any folder) excludes files; its `!` patterns include files that git, or a `.gitignore`,
ignores.

These are never code: the folders of git and of other tools, compiled Python, virtual environments, and the output of earlier runs
of Hydra or of this launcher.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from launcher.code.files.gitignore import IgnoreRules
from launcher.errors import CodeError
from launcher.util.frozen import frozen

__all__ = ["IGNORE_FILE", "Project", "find_project"]

IGNORE_FILE = ".launcherignore"
#: Folders that are never code, wherever they are.
_NEVER = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
        ".ipynb_checkpoints",
        "node_modules",
        ".hypothesis",
    }
)
_NEVER_ENDINGS = (".pyc", ".pyo")
#: What Hydra writes: `outputs/2024-01-31/...`. Tracked files may still have such names.
_OUTPUTS = re.compile(r"(?:^|.*/)(?:outputs|multirun)/\d{4}-\d\d-\d\d/.*", re.DOTALL)
#: A folder with this one in it is the folder of a run (see launcher.runs.journal).
_RUN_MARK = ".launcher"
#: The mode of a submodule in git's index.
_SUBMODULE = "160000 "
#: Programs that a repository's own configuration names are not run: the folder may be a stranger's.
_SETTINGS = ("core.quotePath=false", "core.fsmonitor=false", "core.hooksPath=/dev/null")
_FILTER = re.compile(r"filter\.(.+)\.(clean|process|smudge|required)", re.DOTALL)
#: Variables that lead git to another repository, as they do within a git hook.
_GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@frozen
class Project:
    """A project's files by name.

    Attributes:
        root: real path of its folder.
        names: paths relative to root, with `/`; some files may have been deleted since.
        commit: HEAD of the git work tree; empty without git.
        is_dirty: the work tree differs from it.
        ignored: without git, the rules of its `.gitignore` files.
    """

    root: Path
    names: tuple[str, ...]
    commit: str = ""
    is_dirty: bool = False
    ignored: tuple[str, ...] = ()


def find_project(folder: Path, *, root: Path | None = None, exclude: Iterable[Path] = ()) -> Project:
    """The project around a folder.

    Args:
        root: take this folder instead; if it is a git work tree, as one.
        exclude: folders that do not belong to it, such as the run's own.

    Raises:
        CodeError: git refuses; or there is no repository, and the folder is one for files of all kinds, such as the home folder.
    """
    start = Path(os.path.realpath(root if root is not None else folder))
    top = start if root is not None else _git_top(start)
    project = None
    if top is not None and (top / ".git").exists():
        project = _by_git(top)
    if project is None:
        project = _by_walking(top or start)
    names = _chosen(project, [Path(os.path.realpath(one)) for one in exclude])
    return Project(project.root, tuple(sorted(names)), project.commit, project.is_dirty)


def _git_top(folder: Path) -> Path | None:
    for one in (folder, *folder.parents):
        if (one / ".git").exists():
            return one
    return None


def _chosen(project: Project, exclude: list[Path]) -> set[str]:
    """The names without those that ignore files name, and without excluded folders."""
    root, chosen = project.root, set(project.names)
    out = {os.path.relpath(one, root) + "/" for one in exclude if root in one.parents}
    out.update({name.partition(f"/{_RUN_MARK}/")[0] + "/" for name in chosen if f"/{_RUN_MARK}/" in name})
    if out:
        chosen = {name for name in chosen if not name.startswith(tuple(out))}
    rules = IgnoreRules()
    places = {name for name in chosen if name == IGNORE_FILE or name.endswith(f"/{IGNORE_FILE}")}
    if (root / IGNORE_FILE).is_file():
        places.add(IGNORE_FILE)  # git itself may ignore it
    for place in sorted(places):
        try:
            text = (root / place).read_bytes()
        except OSError:
            continue  # deleted in the work tree
        rules.add(place.rpartition("/")[0], os.fsdecode(text))
    if rules:
        if rules.takes_back:
            ignored = project.ignored or _ignored_by_git(root)
            chosen.update(name for name in ignored if rules.verdict(name) is False)
        chosen = {name for name in chosen if not rules.verdict(name)}
    return chosen


# -- git -----------------------------------------------------------------------------------------------------------


def _git(folder: Path, *arguments: str, settings: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    given = [part for setting in (*_SETTINGS, *settings) for part in ("-c", setting)]
    return subprocess.Popen(
        ["git", *given, "-C", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
    )


def _output(process: subprocess.Popen[bytes], folder: Path) -> bytes | None:
    """What git printed; None if git says that there is no repository.

    Raises:
        CodeError: git failed for another reason.
    """
    out, err = process.communicate()
    if process.returncode == 0:
        return out
    text = err.decode(errors="replace").strip()
    if "not a git repository" in text:
        return None
    raise CodeError(f"git cannot tell what the code in {folder} is: {text}")


def _by_git(root: Path) -> Project | None:
    """The project of a work tree; None without git, or if `.git` is no repository."""
    try:
        status = _status(root)
    except FileNotFoundError:
        return None
    names, submodules = None, list[Path]()
    try:
        names = _listed(root, submodules)
    finally:
        said = _output(status, root)
    if names is None or said is None:
        return None
    lines = said.split(b"\0")
    commit = next((line[13:].decode() for line in lines if line.startswith(b"# branch.oid ")), "")
    is_dirty = _has_changes(said) or any(_has_changes(_output(_status(one), one) or b"") for one in submodules)
    return Project(root, tuple(names), "" if commit == "(initial)" else commit, is_dirty)


def _status(root: Path) -> subprocess.Popen[bytes]:
    """`git status`, which asks no submodule: git would not pass our settings on to it."""
    command = ("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--ignore-submodules=dirty")
    return _git(root, *command, settings=_without_filters(root))


def _has_changes(status: bytes) -> bool:
    return any(line and not line.startswith(b"# ") for line in status.split(b"\0"))


def _without_filters(root: Path) -> tuple[str, ...]:
    """The settings that turn off the filters that a repository's own configuration names: `git status` would run them."""
    names = ("--includes", "--name-only", "-z", "--get-regexp", r"^filter\.")
    listed = _git(root, "config", "--show-scope", *names)
    said = os.fsdecode(listed.communicate()[0]).split("\0")
    own = {name for scope, name in zip(said[::2], said[1::2], strict=False) if scope in ("local", "worktree")}
    if listed.returncode not in (0, 1):
        # Git before 2.26 does not say whose they are: none of them is run.
        own = set(os.fsdecode(_git(root, "config", *names).communicate()[0]).split("\0"))
    found = (_FILTER.fullmatch(one) for one in sorted(own))
    values = {"clean": "", "process": "", "smudge": "", "required": "false"}
    return tuple(f"{one[0]}={values[one[2]]}" for one in found if one is not None)


def _listed(root: Path, submodules: list[Path]) -> list[str] | None:
    said = _output(_git(root, "ls-files", "-z", "-t", "-s", "--cached", "--others", "--exclude-standard"), root)
    if said is None:
        return None
    names: list[str] = []
    environments: dict[str, bool] = {}
    for line in os.fsdecode(said).split("\0"):
        if not line:
            continue
        is_untracked = line.startswith("? ")
        about, _, name = ("", "", line[2:]) if is_untracked else line.partition("\t")
        parts = name.split("/")
        if not _NEVER.isdisjoint(parts) or name.endswith(_NEVER_ENDINGS):
            continue
        if is_untracked and (_OUTPUTS.fullmatch(name) or _in_environment(root, parts, environments)):
            continue
        may_be_folder = name.endswith("/") or about[2:].startswith(_SUBMODULE)
        if may_be_folder and os.path.isdir(root / name) and not os.path.islink(root / name):
            # A submodule, or a repository within this one.
            inner = root / name.rstrip("/")
            below = _listed(inner, submodules) if (inner / ".git").exists() else None
            if below is not None and about[2:].startswith(_SUBMODULE):
                submodules.append(inner)
            names += [f"{name.rstrip('/')}/{one}" for one in below or ()]
            continue
        names.append(name)
    return names


def _in_environment(root: Path, parts: list[str], known: dict[str, bool]) -> bool:
    """Whether the path lies in a virtual environment that git does not ignore."""
    folder = ""
    for part in parts[:-1]:
        folder = f"{folder}/{part}" if folder else part
        if folder not in known:
            known[folder] = os.path.exists(root / folder / "pyvenv.cfg")
        if known[folder]:
            return True
    return False


def _ignored_by_git(root: Path) -> list[str]:
    if not (root / ".git").exists():
        return []
    try:
        said = _output(_git(root, "ls-files", "-z", "--others", "--ignored", "--exclude-standard"), root) or b""
    except FileNotFoundError:
        return []
    names = [os.fsdecode(raw) for raw in said.split(b"\0") if raw]
    return [name for name in names if _NEVER.isdisjoint(name.split("/")) and not name.endswith(_NEVER_ENDINGS)]


# -- without git ---------------------------------------------------------------------------------------------------


def _by_walking(root: Path) -> Project:
    """Every file below a folder that may be code and that no `.gitignore` names."""
    shared = {Path("/"), Path(os.path.realpath(os.path.expanduser("~"))), Path(os.path.realpath(tempfile.gettempdir()))}
    if root in shared:
        raise CodeError(
            f"the application is in {root} itself, and that whole folder would be sent to the hosts. Put it into a "
            "folder of its own, or into a git repository"
        )
    names = list(_walked(root, ""))
    rules = IgnoreRules()
    for name in sorted(name for name in names if name == ".gitignore" or name.endswith("/.gitignore")):
        try:
            text = (root / name).read_bytes()
        except OSError as error:
            raise CodeError(f"{root / name}: {error.strerror}; so which files it excludes is unknown") from None
        rules.add(name.rpartition("/")[0], os.fsdecode(text))
    ignored = {name for name in names if rules.verdict(name)}
    return Project(root, tuple(name for name in names if name not in ignored), ignored=tuple(ignored))


def _walked(root: Path, below: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        raise CodeError(f"{root / below}: {error.strerror}; leave it out with {IGNORE_FILE}") from None
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name in _NEVER or entry.name.endswith(_NEVER_ENDINGS):
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield name
        elif not _is_outputs(root, below, entry.name):
            yield from _walked(root, name)


def _is_outputs(root: Path, below: str, name: str) -> bool:
    """Whether Hydra writes to this folder; a package may have the same name."""
    if not below and name in ("outputs", "multirun"):
        return not os.path.exists(root / name / "__init__.py")
    return _OUTPUTS.fullmatch(f"{below}/{name}/") is not None
