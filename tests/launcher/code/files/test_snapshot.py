"""The code that is sent: the right files, with the content that was hashed, the second time without reading them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import pytest

from launcher.code.files import file_hashes, project_files
from launcher.code.files import snapshot as snapshot_module
from launcher.code.files.file_hashes import ContentStore
from launcher.code.files.manifest import in_parts
from launcher.code.files.project_files import find_project
from launcher.code.files.snapshot import Snapshot, take
from launcher.errors import CodeError

ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache folder, a git configuration and a home for the test."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", root, "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A repository with one commit."""
    root = tmp_path / "project"
    root.mkdir()
    write(
        root,
        {
            "app.py": "app\n",
            "pkg/__init__.py": "",
            "pkg/mod.py": "mod\n",
            ".gitignore": "*.log\n/data/\n",
            "gone.py": "x",
        },
    )
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def age(root: Path) -> None:
    """Make files older than the clock's resolution, as they would be a moment later."""
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.utime(os.path.join(folder, name), (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def names(snapshot: Snapshot) -> set[str]:
    return {file.path for file in snapshot.files} | {path for path, _ in snapshot.links}


# -- which files -----------------------------------------------------------------------------------------------------


def test_a_work_tree_is_sent_as_it_is(project):
    """Tracked and untracked files are sent, edited ones as they are now.

    Deleted and ignored files are not. The commit and whether the tree is dirty are recorded.
    """
    clean = take(project / "app.py")
    assert names(clean) == {"app.py", "pkg/__init__.py", "pkg/mod.py", ".gitignore", "gone.py"}
    assert clean.commit == git(project, "rev-parse", "HEAD")
    assert not clean.dirty
    write(
        project, {"app.py": "edited\n", "new.py": "new\n", "x.log": "", "data/big.bin": "", "pkg/__pycache__/a.pyc": ""}
    )
    (project / "gone.py").unlink()
    dirty = take(project / "app.py")
    assert names(dirty) == {"app.py", "pkg/__init__.py", "pkg/mod.py", ".gitignore", "new.py"}
    assert dirty.dirty
    assert dirty.commit == clean.commit
    assert dirty.hash != clean.hash
    assert dirty.read(hashlib.sha256(b"edited\n").hexdigest()) == b"edited\n"


def test_two_names_that_are_one_file_here_are_told(project):
    """As on a disk that does not tell case apart, by a link here: git tracks two files, and one of them is not there."""
    git(project, "rm", "-q", "--cached", "gone.py")
    write(project, {"Model.py": "one\n", "other.py": "one\n"})
    (project / "model.py").hardlink_to(project / "Model.py")
    snapshot = take(project / "app.py")
    assert {"Model.py", "model.py"} <= names(snapshot)
    (note,) = [note for note in snapshot.notes if "the same file" in note]
    assert "Model.py and model.py" in note


def test_an_app_in_a_subfolder_brings_the_whole_project(project):
    """This is the work tree around it, whatever folder the app or the user is in."""
    assert take(project / "pkg" / "mod.py").root == project
    assert take(project / "pkg").root == project
    assert names(take(project / "pkg")) == names(take(project / "app.py"))


def test_variables_of_a_git_hook_do_not_mislead(project, monkeypatch, tmp_path):
    """Within a hook, GIT_DIR and similar variables name another repository."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert "app.py" in names(take(project))


def test_a_repository_without_a_commit(tmp_path):
    """The snapshot has no commit, and is dirty."""
    write(tmp_path, {"r/a.py": "a"})
    git(tmp_path / "r", "init", "-q")
    snapshot = take(tmp_path / "r" / "a.py")
    assert (names(snapshot), snapshot.commit, snapshot.dirty) == ({"a.py"}, "", True)


@pytest.mark.slow
def test_submodules_and_inner_repositories_are_sent(project, tmp_path):
    """Their files are sent, as they are now."""
    other = tmp_path / "other"
    write(other, {"lib.py": "lib\n", ".gitignore": "no.txt\n"})
    git(other, "init", "-q")
    git(other, "add", ".")
    git(other, "commit", "-qm", "lib")
    git(project, "submodule", "add", "-q", str(other), "deps/lib")
    write(project, {"deps/lib/untracked.py": "u", "deps/lib/no.txt": ""})
    shutil.copytree(other, project / "vendored")
    found = names(take(project))
    assert {"deps/lib/lib.py", "deps/lib/untracked.py", "vendored/lib.py", ".gitmodules"} <= found
    assert "deps/lib/no.txt" not in found
    assert not any(".git/" in name for name in found)


def test_what_takes_the_place_of_a_tracked_name_is_sent(project, tmp_path):
    """A folder where git has a file, a file where it has a submodule."""
    other = tmp_path / "other"
    write(other, {"lib.py": "lib\n"})
    git(other, "init", "-q")
    git(other, "add", ".")
    git(other, "commit", "-qm", "lib")
    git(project, "submodule", "add", "-q", str(other), "lib")
    shutil.rmtree(project / "lib")
    (project / "lib").write_text("file\n")
    (project / "pkg" / "mod.py").unlink()
    write(project, {"pkg/mod.py/inner.py": "inner\n"})
    snapshot = take(project)
    assert {"lib", "pkg/mod.py/inner.py"} <= names(snapshot)
    assert "pkg/mod.py" not in names(snapshot)
    assert snapshot.notes == ()


def test_an_invalid_git_folder_is_ignored(tmp_path):
    """A `.git` that git does not accept does not make a repository."""
    (tmp_path / "p" / ".git").mkdir(parents=True)
    write(tmp_path, {"p/a.py": "a"})
    snapshot = take(tmp_path / "p" / "a.py")
    assert (names(snapshot), snapshot.commit) == ({"a.py"}, "")


def test_an_error_of_git_is_shown(project, monkeypatch, tmp_path):
    """The message has git's error. The folder is not sent with all that git ignores."""
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in repository' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(CodeError, match="dubious ownership"):
        take(project / "app.py")


def test_without_git_installed_its_ignore_files_still_count(project, monkeypatch):
    """The work tree's folder is sent, without what .gitignore names."""
    write(project, {"x.log": "", "data/big.bin": "", "pkg/y.log": ""})
    monkeypatch.setenv("PATH", "/nonexistent")
    snapshot = take(project / "app.py")
    assert names(snapshot) == {"app.py", "pkg/__init__.py", "pkg/mod.py", ".gitignore", "gone.py"}
    assert snapshot.commit == ""


def test_without_a_repository_the_folder_is_sent(tmp_path):
    """The folder is sent without what is never code, such as Hydra's outputs, environments and caches."""
    root = tmp_path / "plain"
    write(
        root,
        {
            "app.py": "a",
            "conf/config.yaml": "x: 1",
            "outputs/2024-01-02/x": "",
            "multirun/x/y": "",
            "env/pyvenv.cfg": "",
            "env/lib/z.py": "",
            "__pycache__/a.pyc": "",
            "a.pyc": "",
            ".mypy_cache/x": "",
            "node_modules/x.js": "",
            "sub/outputs/ok.py": "",
            "sub/multirun/2024-01-02/x": "",
            ".env": "A=1",
        },
    )
    assert names(take(root / "app.py")) == {"app.py", "conf/config.yaml", "sub/outputs/ok.py", ".env"}
    write(root, {"outputs/__init__.py": "", "outputs/code.py": ""})
    assert "outputs/code.py" in names(take(root / "app.py"))


def test_without_a_repository_ignore_files_count(tmp_path):
    """They mean the same as to git: nested ones apply to their own folder, `!` includes again, and an ignored folder is
    left out whole.

    Git itself gives the same result for the same files.
    """
    root = tmp_path / "plain"
    write(
        root,
        {
            "app.py": "a",
            ".env": "TOKEN=1",
            "data/big.bin": "",
            "data/.gitignore": "!big.bin\n",
            "logs/a.log": "",
            "logs/keep.log": "",
            "pkg/mod.py": "",
            "pkg/made.py": "",
            "pkg/deep/made.py": "",
            "pkg/deep/.gitignore": "!made.py\n",
            "pkg/.gitignore": "made.py\n",
            ".gitignore": "# secrets\n.env\n/data/\n*.log\n!keep.log\n",
        },
    )
    expected = {
        ".gitignore",
        "app.py",
        "logs/keep.log",
        "pkg/.gitignore",
        "pkg/deep/.gitignore",
        "pkg/deep/made.py",
        "pkg/mod.py",
    }
    assert names(take(root / "app.py")) == expected
    git(root, "init", "-q")
    assert names(take(root / "app.py")) == expected


def test_without_a_repository_launcherignore_includes_ignored_files(tmp_path):
    """Its `!` overrides a `.gitignore`, as in a repository."""
    root = tmp_path / "plain"
    write(
        root,
        {
            "app.py": "",
            "made.py": "",
            "other.py": "",
            ".gitignore": "made.py\nother.py\n",
            ".launcherignore": "!made.py",
        },
    )
    assert names(take(root / "app.py")) == {"app.py", "made.py", ".gitignore", ".launcherignore"}


def test_an_unreadable_ignore_file_is_an_error(tmp_path):
    """The files that it would have excluded are not sent just because it cannot be read."""
    root = tmp_path / "plain"
    write(root, {"app.py": "", ".env": ""})
    (root / ".gitignore").symlink_to("nowhere")
    with pytest.raises(CodeError, match=r"\.gitignore: No such file"):
        take(root / "app.py")


def test_a_home_folder_is_refused(tmp_path, monkeypatch):
    """A home folder is not sent just because a script is in it."""
    write(tmp_path, {"home/app.py": "a", "home/.ssh/id_ed25519": "secret"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(CodeError, match="folder of its own"):
        take(tmp_path / "home" / "app.py")


def test_outputs_that_are_not_ignored_are_left_out(project):
    """These are untracked folders of earlier runs, known by Hydra's dates and this launcher's mark, and environments."""
    write(
        project,
        {
            "outputs/2024-01-02/10-00-00/a.txt": "",
            "x/multirun/2024-01-02/a": "",
            "results/exp/.launcher/journal": "",
            "results/exp/0/a": "",
            "venv/pyvenv.cfg": "",
            "venv/lib/a.py": "",
            "mine/a.txt": "",
            "results/keep.txt": "",
        },
    )
    assert names(take(project)) - names(take(project, exclude=[project / "mine"])) == {"mine/a.txt"}
    assert {name for name in names(take(project)) if "/" in name and not name.startswith("pkg/")} == {
        "mine/a.txt",
        "results/keep.txt",
    }


def test_launcherignore_excludes_and_includes(project):
    """It has gitignore's syntax, in any folder. `!` includes what git ignores."""
    write(
        project,
        {
            "big/a.bin": "1",
            "big/b.py": "2",
            "pkg/notes.txt": "3",
            "pkg/sub/notes.txt": "4",
            "made_version.log": "5",
            "other.log": "6",
            ".launcherignore": "big/*\n!big/b.py\n!made_version.log\n",
            "pkg/.launcherignore": "notes.txt\n!sub/notes.txt\n",
        },
    )
    found = names(take(project))
    assert {"big/b.py", "made_version.log", "pkg/sub/notes.txt", ".launcherignore"} <= found
    assert not found & {"big/a.bin", "pkg/notes.txt", "other.log"}
    (project / ".git").rename(project.parent / "away")
    assert "big/a.bin" not in names(take(project / "app.py"))


def test_a_root_may_be_given(project, tmp_path):
    """It may be a part of the repository, or a folder around several."""
    assert names(take(project / "pkg" / "mod.py", root=project / "pkg")) == {"__init__.py", "mod.py"}
    write(tmp_path, {"beside.py": ""})
    assert "project/app.py" in names(take(project / "app.py", root=tmp_path))


# -- links and odd files -----------------------------------------------------------------------------------------------


def test_links(project, tmp_path):
    """A link within the project is sent as a link.

    A link to a file outside is sent as that file. A broken link is left out, with a note. A link to a folder outside is
    refused.
    """
    write(tmp_path, {"outside.txt": "outside", "folder/x": ""})
    (project / "rel").symlink_to("pkg/mod.py")
    (project / "dir").symlink_to("pkg")
    (project / "abs").symlink_to(project / "app.py")
    (project / "pkg" / "up").symlink_to("../app.py")
    (project / "pkg" / "round").symlink_to(f"../../{project.name}/app.py")
    (project / "out").symlink_to("../outside.txt")
    (project / "nowhere").symlink_to("/no/such/thing")
    snapshot = take(project)
    assert dict(snapshot.links) == {
        "rel": "pkg/mod.py",
        "dir": "pkg",
        "abs": "app.py",
        "pkg/up": "../app.py",
        "pkg/round": "../app.py",
    }
    assert snapshot.read(hashlib.sha256(b"outside").hexdigest()) == b"outside"
    assert "out" in {file.path for file in snapshot.files}
    assert any("nowhere" in note for note in snapshot.notes)
    (project / "data2").symlink_to(tmp_path / "folder")
    with pytest.raises(CodeError, match=r"data2 .*\.launcherignore"):
        take(project)
    write(project, {".launcherignore": "data2\n"})
    assert "data2" not in names(take(project))


def test_odd_files_and_names(project):
    """A pipe is not sent. Files with spaces, newlines, quotes and invalid UTF-8 in their names are sent."""
    os.mkfifo(project / "pipe")
    odd = ["with space.py", 'quote".py', "new\nline.py", os.fsdecode(b"latin\xe9.py"), "é.py", "-dash", "*star"]
    for name in odd:
        (project / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    snapshot = take(project)
    assert set(odd) <= names(snapshot)
    content = json.loads(zlib.decompress(snapshot.manifest_bytes()))
    assert set(odd) <= {entry[0] for entry in content["files"]}


def test_modes(project):
    """Only whether a file is executable is kept."""
    (project / "app.py").chmod(0o775)
    (project / "pkg" / "mod.py").chmod(0o600)
    modes = {file.path: file.mode for file in take(project).files}
    assert (modes["app.py"], modes["pkg/mod.py"]) == (0o755, 0o644)


def test_a_file_that_vanishes_or_cannot_be_read_is_named(project, monkeypatch):
    """The message names the file and what to do."""
    original = Path.open

    def refusing(self, *args, **kwargs):
        if self.name == "mod.py":
            raise PermissionError(13, "Permission denied")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(CodeError, match=r"mod\.py: Permission denied"):
        take(project)


# -- the cap -----------------------------------------------------------------------------------------------------------


def test_an_error_of_the_cap_names_the_largest_files(project):
    """The message has the cap, the total, the five largest files, and both solutions."""
    for index in range(7):
        (project / f"w{index}.bin").write_bytes(b"x" * (index + 1) * 100_000)
    with pytest.raises(CodeError) as caught:
        take(project, max_bytes=1 << 20)
    text = str(caught.value)
    assert "1.0 MiB" in text
    assert text.index("w6.bin") < text.index("w5.bin") < text.index("w2.bin")
    assert "w1.bin" not in text
    assert ".launcherignore" in text
    assert "max_code_size" in text
    assert take(project, max_bytes=10 << 20).total > 1 << 20


# -- content and memory --------------------------------------------------------------------------------------------------


def test_the_manifest_is_what_the_agent_reads(project):
    """The same files give the same bytes. The agent's own reader accepts it, and writes the tree."""
    from remote_agent.agent.spool.code.blobs import BlobStore
    from remote_agent.agent.spool.code.code_tree import CodeTree

    (project / "link").symlink_to("app.py")
    snapshot = take(project)
    assert take(project).manifest_bytes() == snapshot.manifest_bytes()
    store = BlobStore(str(project.parent / "blobs"))
    for name, part in snapshot.manifest_parts.items():
        store.put(name, part)
    for file in snapshot.files:
        store.put(file.sha256, snapshot.read(file.sha256))
    tree = CodeTree(store, str(project.parent), str(project.parent))
    assert tree.advance(snapshot.hash) is None
    target = project.parent / "code"
    assert (target / "pkg" / "mod.py").read_text() == "mod\n"
    assert (target / "link").read_text() == "app\n"
    again = Snapshot.of_manifest(project, snapshot.manifest_bytes(), snapshot.commit, snapshot.dirty)
    assert again.hash == snapshot.hash
    assert again.files == snapshot.files
    assert again.read(snapshot.files[0].sha256) == snapshot.read(snapshot.files[0].sha256)


def test_a_second_run_reads_nothing(project, tmp_path):
    """Unchanged files are recognised by size, times and inode. Changed ones are read again."""
    age(project)
    # The inode's own time is now; a snapshot of files this young would be cautious.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_hashes, "_REST_NS", -(10**18))
        first = take(project)
        second = take(project)
        assert (first.hashed, second.hashed) == (5, 0)
        assert second.hash == first.hash
        write(project, {"app.py": "APP\n"})
        third = take(project)
        assert third.hashed == 1
        assert third.hash != first.hash
        shutil.rmtree(os.environ["XDG_CACHE_HOME"])
        assert take(project).hash == third.hash


def test_the_hash_of_a_file_written_just_now_is_not_cached(project, monkeypatch):
    """A file may be written again in the same tick of the clock, so its hash is not cached. However slow this machine is, it has just been."""
    monkeypatch.setattr(file_hashes, "_REST_NS", 600 * 10**9)
    assert take(project).hashed == 5
    assert take(project).hashed == 5


def test_a_damaged_cache_is_ignored(project, own_cache, monkeypatch):
    """Whatever is in the cache folder, the hashes are right: one of them may have another digit, or another version wrote it."""
    monkeypatch.setattr(file_hashes, "_REST_NS", -(10**18))
    before = take(project).hash
    (path,) = (own_cache / "hydra-remote-launcher" / "hashes").glob("*.json")
    whole = path.read_bytes()
    digest = hashlib.sha256(b"app\n").hexdigest().encode()
    assert digest in whole
    version_1 = b'{"version":1,"files":' + whole.partition(b"\n")[2].replace(digest, b"0" * 64) + b"}"
    for damaged in (b"", b"{", whole[:-7], whole.replace(digest, b"0" * 64), b"9" + whole[1:], version_1):
        path.write_bytes(damaged)
        again = take(project)
        assert (again.hash, again.hashed) == (before, 5)
        assert path.read_bytes() == whole


def test_the_manifest_of_unchanged_files_is_not_made_again(project, own_cache, monkeypatch):
    """Its name is remembered. Where that is damaged, or a file has changed, it is made; and when a host asks for it."""
    made: list[int] = []

    def counted(files, links):
        made.append(1)
        return in_parts(files, links)

    monkeypatch.setattr(snapshot_module, "in_parts", counted)
    name = take(project).hash
    assert len(made) == 1
    again = take(project)
    assert (again.hash, len(made)) == (name, 1)
    assert name in again.manifest_parts
    assert len(made) == 2
    (path,) = (own_cache / "hydra-remote-launcher" / "hashes").glob("*.manifest")
    whole = path.read_bytes()
    for damaged in (b"", b"x", whole.replace(name.encode(), b"0" * 64), b"\xff" * 200):
        path.write_bytes(damaged)
        assert take(project).hash == name
    assert len(made) == 6
    (project / "app.py").chmod(0o755)
    assert take(project).hash != name
    assert len(made) == 7


class Looks:
    """Records the paths with which functions are called."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def of(self, real: Any) -> Any:
        """The function, recorded."""

        def look(path: Any, *arguments: Any, **more: Any) -> Any:
            self.paths.append("" if isinstance(path, int) else os.fsdecode(path))
            return real(path, *arguments, **more)

        return look


def test_an_unchanged_file_is_looked_at_once(project, monkeypatch):
    """Each costs one call of the system, which counts where there are many, and more on a network's disk."""
    monkeypatch.setattr(file_hashes, "_REST_NS", -(10**18))
    write(project, {f"many/file_{number}.py": str(number) for number in range(200)})
    for make in (lambda: None, lambda: git(project, "init", "-q"), lambda: git(project, "add", "-A")):
        make()
        take(project)
        looks = Looks()
        for name in ("stat", "lstat", "open"):
            monkeypatch.setattr(os, name, looks.of(getattr(os, name)))
        assert take(project).hashed == 0
        monkeypatch.undo()
        monkeypatch.setattr(file_hashes, "_REST_NS", -(10**18))
        assert sum("/many/file_" in path for path in looks.paths) == 200


def test_the_cache_is_private_and_may_be_missing(project, own_cache, monkeypatch):
    """The modes are 0600 and 0700. With a read-only home it only takes longer."""
    snapshot = take(project)
    for path in own_cache.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    blocked = own_cache / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert take(project).hash == snapshot.hash


def test_an_edit_after_the_run_began_changes_nothing(project):
    """A host that is reached later gets the content that was hashed. If that was not kept, the error names the file."""
    snapshot = take(project)
    digest = next(file.sha256 for file in snapshot.files if file.path == "app.py")
    write(project, {"app.py": "edited later\n"})
    assert snapshot.read(digest) == b"app\n"
    (project / "app.py").unlink()
    assert snapshot.read(digest) == b"app\n"
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    with pytest.raises(CodeError, match=r"app\.py changed after the run began"):
        snapshot.read(digest)


def test_a_file_that_keeps_changing_is_named(project, monkeypatch):
    """Neither a part of a file nor a mixture is ever hashed."""
    real = os.fstat
    count = iter(range(10**6))

    def changing(fd):
        status = list(real(fd))
        return types.SimpleNamespace(st_size=status[6], st_mtime_ns=next(count), st_ctime_ns=0, st_ino=1)

    monkeypatch.setattr(file_hashes.os, "fstat", changing)
    with pytest.raises(CodeError, match="keeps changing"):
        take(project)


def test_kept_content_has_a_cap(tmp_path):
    """The oldest is deleted first. Altered content is not used."""
    store = ContentStore(tmp_path / "kept", max_bytes=800)
    digests = []
    for index in range(4):
        data = bytes([index]) * 100
        digest = hashlib.sha256(data).hexdigest()
        store.keep(digest, data)
        store.keep(digest, data)
        store.close()
        digests.append(digest)
    assert [store.read(digest) is not None for digest in digests] == [False, False, True, True]
    newest = max((tmp_path / "kept").iterdir())
    newest.write_bytes(newest.read_bytes().replace(bytes([3]) * 100, bytes([9]) * 100))
    assert store.read(digests[3]) is None


# -- paths on the host ---------------------------------------------------------------------------------------------------


def test_sys_path_on_the_host(project, tmp_path, monkeypatch):
    """It has the entries in the snapshot, in the same order as here, and no others."""
    write(
        project,
        {
            "src/lib/__init__.py": "",
            "tools/run.py": "",
            "data/x": "",
            ".venv/pyvenv.cfg": "",
            ".venv/lib/site-packages/a.py": "",
        },
    )
    snapshot = take(project)
    paths = [
        str(project / "tools"),
        "",
        str(project / "src"),
        "/usr/lib",
        str(project / "data"),
        str(project / ".venv/lib/site-packages"),
        str(project / "src"),
    ]
    monkeypatch.chdir(project)
    assert snapshot.sys_path(project / "tools" / "run.py", paths) == ["tools", ".", "src"]
    monkeypatch.chdir(tmp_path)
    assert snapshot.sys_path(project / "tools" / "run.py", ["/usr/lib"]) == ["tools"]
    assert snapshot.sys_path(project / "pkg" / "mod.py", ["/usr/lib"]) == ["."]
    assert snapshot.sys_path(project / "pkg" / "mod.py", [str(project)]) == ["."]
    assert snapshot.sys_path(tmp_path / "elsewhere.py", ["/usr/lib"]) == []


def test_editable_installs_of_setuptools_are_found(project, monkeypatch):
    """Such installs import from folders that are not on the path."""
    write(project, {"src/lib/__init__.py": "", "single/one.py": ""})
    finder = types.ModuleType("__editable___lib_0_1_finder")
    finder.MAPPING = {
        "lib": str(project / "src" / "lib"),
        "one": str(project / "single" / "one.py"),
        "far": "/far/away/far",
    }
    monkeypatch.setitem(sys.modules, finder.__name__, finder)
    assert take(project).sys_path(project / "app.py", [str(project)]) == [".", "src", "single"]


def test_folders_on_the_host(project, tmp_path):
    """The working folder on the host is the same folder, the nearest one that is sent, or the root."""
    write(project, {"data/inner/x": ""})
    snapshot = take(project)
    assert snapshot.relative(project) == "."
    assert snapshot.relative(project / "pkg") == "pkg"
    assert snapshot.relative(project / "pkg" / "mod.py") == "pkg/mod.py"
    assert snapshot.relative(project / "data" / "inner") == "."
    assert snapshot.relative(tmp_path) == "."


@pytest.mark.slow
def test_a_second_snapshot_of_many_files_reads_none(tmp_path):
    """With a thousand files, the second snapshot reads no file, and asks git three times: for filters, changes and files."""
    root = tmp_path / "many"
    write(root, {f"d{index % 40}/f{index}.py": f"value = {index}\n" for index in range(1000)})
    git(root, "init", "-q")
    asked = []
    original = project_files._git

    def counting(folder, *arguments, **settings):
        asked.append(arguments)
        return original(folder, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_hashes, "_REST_NS", -(10**18))
        patch.setattr(project_files, "_git", counting)
        assert take(root).hashed == 1000
        asked.clear()
        snapshot = take(root)
    assert snapshot.hashed == 0
    assert len(snapshot.files) == 1000
    assert [one[0] for one in asked] == ["config", "status", "ls-files"]


def test_no_filter_is_run_by_a_git_that_does_not_say_whose_it_is(tmp_path, monkeypatch):
    """As git before 2.26."""
    project, planted = tmp_path / "project", tmp_path / "planted"
    write(project, {"a.txt": "one", ".gitattributes": "*.txt filter=x\n"})
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "one")
    git(project, "config", "filter.x.clean", f"touch {planted}; cat #")
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text(f'#!/bin/sh\ncase "$*" in *--show-scope*) exit 129;; esac\nexec {shutil.which("git")} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    (project / "a.txt").write_text("two")
    assert find_project(project).is_dirty
    assert not planted.exists()


@pytest.mark.parametrize("place", [".", "deps/lib"])
@pytest.mark.parametrize("setting", ["core.fsmonitor", "filter.x.clean", "filter.x.process"])
def test_no_program_of_a_repositorys_configuration_is_run(project, tmp_path, place, setting):
    """Neither of the folder's own, nor of a submodule's: it may be a stranger's. What has changed is seen all the same."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "a.txt").write_text("one")
    (other / ".gitattributes").write_text("*.txt filter=x\n")
    git(other, "add", ".")
    git(other, "commit", "-qm", "one")
    if place == ".":
        project = other
    else:
        git(project, "submodule", "add", "-q", str(other), place)
        git(project, "commit", "-qm", "a submodule")
    assert not find_project(project).is_dirty
    planted = tmp_path / "planted"
    git(project / place, "config", setting, f"touch {planted}; cat #")
    (project / place / "a.txt").write_text("two")
    assert find_project(project).is_dirty
    assert not planted.exists()
