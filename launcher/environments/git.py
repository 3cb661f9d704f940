"""The files of a package that comes from git, at the commit that the lock has.

Rule: git asks the server, with the credentials that it has here and without a question to anybody; no host does. What is checked out is the commit
of the lock, or nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from launcher.environments.uv import Steps, last_lines, without_secrets
from launcher.errors import PackagesError

__all__ = ["check_out", "folder_in", "git_address", "is_git_address"]

_PREFIX = "git+"
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: Ways to a repository; git knows others, which run programs.
_PROTOCOLS = ("file", "git", "http", "https", "ssh")


class _GitFailed(PackagesError):
    """It has ended, and says why."""


def git_address(url: str, commit: str, subdirectory: str | None) -> str:
    """Repository, commit and folder in one line, as pip writes them.

    Raises:
        PackagesError: they are none.
    """
    if urlsplit(url).scheme not in _PROTOCOLS or not _COMMIT.fullmatch(commit):
        raise PackagesError(
            f"environment: {url!r} at {commit[:80]!r} is not a commit that git can fetch ({', '.join(_PROTOCOLS)})"
        )
    folder = folder_in(url, subdirectory)
    return f"{_PREFIX}{url}@{commit}" + (f"#subdirectory={quote(folder)}" if folder else "")


def folder_in(url: str, subdirectory: str | None) -> str:
    """Return the folder in which a package lies in its repository or archive; empty for the top.

    Raises:
        PackagesError: it leaves that.
    """
    parts = PurePosixPath(subdirectory or "")
    if parts.is_absolute() or ".." in parts.parts:
        raise PackagesError(f"environment: {subdirectory!r} is no folder of {without_secrets(url)}")
    return str(parts) if parts.parts else ""


def is_git_address(url: str) -> bool:
    """Whether it was made by `git_address`."""
    return url.startswith(_PREFIX)


def check_out(address: str, what: str, folder: Path, steps: Steps) -> Path:
    """Fetch a commit into a new folder; returns the folder of the package in it.

    Raises:
        PackagesError: it cannot be had.
    """
    whole, _, subdirectory = address.removeprefix(_PREFIX).partition("#subdirectory=")
    url, _, commit = whole.rpartition("@")
    program = shutil.which("git")
    if program is None:
        raise PackagesError(f"environment: {what} comes from git, and there is no git on this machine; install it")
    folder.mkdir()

    def git(*arguments: str) -> str:
        values = {name: value for name, value in os.environ.items() if not name.startswith("GIT_DIR")}
        values.update(GIT_TERMINAL_PROMPT="0", GIT_ALLOW_PROTOCOL=":".join(_PROTOCOLS))
        try:
            status, output, errors = steps.run([program, *arguments], cwd=folder, env=values)
        except subprocess.TimeoutExpired:
            raise PackagesError(
                f"environment: {what}: `git {arguments[0]}` did not end within {steps.limit:.0f} s on this machine, and was ended\n"
                "    next: see whether its server answers; or allow more with `environment_timeout`"
            ) from None
        except OSError as error:
            raise PackagesError(f"environment: {what}: git cannot be started: {error.strerror or error}") from None
        if status:
            raise _GitFailed(
                f"environment: {what}: `git {arguments[0]}` ended with exit status {status}{last_lines(':', errors)}"
            )
        return output.decode("utf-8", "replace").strip()

    git("init", "--quiet")
    try:
        git("fetch", "--quiet", "--depth", "1", "--", url, commit)
    except _GitFailed:
        # A server that gives no single commits.
        git("fetch", "--quiet", "--", url, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    git("checkout", "--quiet", "--detach", commit)
    git("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    if git("rev-parse", "HEAD") != commit:
        raise PackagesError(f"environment: {what}: git has checked out another commit than {commit}")
    package = folder / unquote(subdirectory)
    if not package.is_dir():
        raise PackagesError(f"environment: {what}: {commit} has no folder {unquote(subdirectory)}")
    return package
