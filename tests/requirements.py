"""What a test needs of the machine beyond Python: root, programs, other Pythons.

Rule: a part that is missing skips the test and says which part; where LAUNCHER_TESTS_NEED_ALL is set, as in .ci/run, it
fails it.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["READS_PROC", "missing", "need_files", "need_module", "need_programs", "need_python", "need_root"]

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"


#: The test itself looks into /proc, or is of the product's reading it. Other systems have none, `tests.macos` among them.
READS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which Linux alone has")


def missing(what: str) -> NoReturn:
    """Skip the test for want of `what`, or fail it where nothing may be missing."""
    if os.environ.get("LAUNCHER_TESTS_NEED_ALL"):
        pytest.fail(f"missing here, and nothing may be: {what}", pytrace=False)
    pytest.skip(f"needs {what}")


def need_root() -> None:
    """The test makes namespaces, users or mounts."""
    if os.geteuid() != 0:
        missing("root")


def need_programs(*names: str) -> dict[str, str]:
    """Absolute paths of programs by name; /usr/sbin and the like are looked in, too."""
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM}"
    found = {name: shutil.which(name, path=path) for name in names}
    absent = [name for name, where in found.items() if where is None]
    if absent:
        missing(f"the programs {', '.join(absent)}")
    return {name: where for name, where in found.items() if where is not None}


def need_files(*paths: str) -> str:
    """The first of these files that there is; of a library, whose place differs."""
    for path in paths:
        if os.path.exists(path):
            return path
    missing(paths[0])


def need_module(name: str) -> None:
    """The test runs a tool that is one of this Python's packages."""
    if importlib.util.find_spec(name) is None:
        missing(f"the package {name}")


def need_python(version: str) -> str:
    """Path of a Python such as `3.8`, from the PATH or pyenv."""
    candidates = [shutil.which(f"python{version}")]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(each / "bin" / f"python{version}") for each in sorted(versions.glob(f"{version}.*"))]
    for candidate in candidates:
        if candidate and _answers(candidate, version):
            return candidate
    missing(f"Python {version}")


def _answers(python: str, version: str) -> bool:
    """A pyenv shim is there for every version and runs only some."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version
