"""Files and the disk under them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from remote_agent.shared.disk import remove_tree

_NOBODY = 65534


def _as_a_user(folder: Path, act: Callable[[], None]) -> int:
    """Run it as a user whose access is checked. Returns 0, or the number of its OSError. The folder belongs to the user."""
    for each in [folder, *folder.rglob("*")]:
        if os.geteuid() == 0:
            os.chown(each, _NOBODY, _NOBODY, follow_symlinks=False)
    for each in sorted(folder.glob("tree/**/closed*"), reverse=True):
        each.chmod(int(each.name[-3:], 8))
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            if os.geteuid() == 0:
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            act()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_tree_is_removed_whatever_rights_its_folders_have() -> None:
    """Nested folders that may not be read, entered or changed. The target of a link is not changed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        tree, outside = folder / "tree", folder / "outside"
        outside.mkdir(mode=0o500)
        (outside / "file").write_text("kept")
        for closed in ("closed000/closed500", "a/closed500", "closed100"):
            (tree / closed).mkdir(parents=True)
            (tree / closed / "file").write_text("goes")
        (tree / "closed000" / "link").symlink_to(outside)
        assert _as_a_user(folder, lambda: remove_tree(str(tree))) == 0
        assert not tree.exists()
        assert outside.stat().st_mode & 0o777 == 0o500
        assert (outside / "file").read_text() == "kept"


def test_a_tree_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is not ignored."""
    assert _as_a_user(tmp_path, lambda: remove_tree("/nothing/there")) == 2
