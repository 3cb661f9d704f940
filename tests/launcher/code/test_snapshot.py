"""What travels as code: the right files, as they were hashed, and a second time without reading them."""

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

import pytest

from launcher.code import file_hashes, project_files
from launcher.code.file_hashes import ContentStore
from launcher.code.snapshot import Snapshot, take
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
    """A cache folder, a git configuration and a home of the test's own."""
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
    """Let files be older than the clock's grain, as they are a moment later."""
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.utime(os.path.join(folder, name), (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def names(snapshot: Snapshot) -> set[str]:
    return {file.path for file in snapshot.files} | {path for path, _ in snapshot.links}


# -- which files -----------------------------------------------------------------------------------------------------


def test_a_work_tree_as_it_is(project):
    """Tracked and untracked files, edited ones as they are, deleted and ignored ones not; commit and dirtiness told."""
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
    (note,) = [note for note in snapshot.notes if "one file" in note]
    assert "Model.py and model.py" in note


def test_an_app_in_a_subfolder_brings_the_whole_project(project):
    """The work tree around it, whatever folder the app or the user is in."""
    assert take(project / "pkg" / "mod.py").root == project
    assert take(project / "pkg").root == project
    assert names(take(project / "pkg")) == names(take(project / "app.py"))


def test_variables_of_a_git_hook_do_not_mislead(project, monkeypatch, tmp_path):
    """GIT_DIR and its like, as they are set within a hook, point elsewhere."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert "app.py" in names(take(project))


def test_a_repository_without_a_commit(tmp_path):
    """It has no commit, and is dirty."""
    write(tmp_path, {"r/a.py": "a"})
    git(tmp_path / "r", "init", "-q")
    snapshot = take(tmp_path / "r" / "a.py")
    assert (names(snapshot), snapshot.commit, snapshot.dirty) == ({"a.py"}, "", True)


def test_submodules_and_repositories_within(project, tmp_path):
    """Their files come along, as they are there."""
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


def test_an_outer_folder_that_is_no_repository(tmp_path):
    """A `.git` that git does not know is none."""
    (tmp_path / "p" / ".git").mkdir(parents=True)
    write(tmp_path, {"p/a.py": "a"})
    snapshot = take(tmp_path / "p" / "a.py")
    assert (names(snapshot), snapshot.commit) == ({"a.py"}, "")


def test_git_that_refuses_is_named(project, monkeypatch, tmp_path):
    """What git says, rather than a folder full of what it ignores."""
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in repository' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    with pytest.raises(CodeError, match="dubious ownership"):
        take(project / "app.py")


def test_without_git_installed_its_ignore_files_still_count(project, monkeypatch):
    """The work tree's folder, less what .gitignore names."""
    write(project, {"x.log": "", "data/big.bin": "", "pkg/y.log": ""})
    monkeypatch.setenv("PATH", "/nonexistent")
    snapshot = take(project / "app.py")
    assert names(snapshot) == {"app.py", "pkg/__init__.py", "pkg/mod.py", ".gitignore", "gone.py"}
    assert snapshot.commit == ""


def test_without_a_repository_it_is_the_folder(tmp_path):
    """Less what is never code; outputs of Hydra, environments and caches among them."""
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
    """As git would read them: nested ones for their own folder, `!` takes back, a folder that is named is out whole.

    Git itself says the same of the same files.
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


def test_without_a_repository_launcherignore_takes_in_what_is_ignored(tmp_path):
    """Its `!` is stronger than a `.gitignore`, as in a repository."""
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


def test_an_ignore_file_that_cannot_be_read_is_told(tmp_path):
    """What it would have kept here is not sent for want of it."""
    root = tmp_path / "plain"
    write(root, {"app.py": "", ".env": ""})
    (root / ".gitignore").symlink_to("nowhere")
    with pytest.raises(CodeError, match=r"\.gitignore: No such file"):
        take(root / "app.py")


def test_folders_of_everything_are_refused(tmp_path, monkeypatch):
    """Nobody's home travels because a script lies in it."""
    write(tmp_path, {"home/app.py": "a", "home/.ssh/id_ed25519": "secret"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(CodeError, match="folder of its own"):
        take(tmp_path / "home" / "app.py")


def test_outputs_that_nobody_ignored_stay(project):
    """Untracked folders of earlier runs, by Hydra's dates and by this launcher's mark, and environments."""
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


def test_launcherignore_takes_out_and_in(project):
    """The syntax of gitignore, in any folder; `!` takes in what git ignores."""
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
    """A part of the repository, or a folder around several."""
    assert names(take(project / "pkg" / "mod.py", root=project / "pkg")) == {"__init__.py", "mod.py"}
    write(tmp_path, {"beside.py": ""})
    assert "project/app.py" in names(take(project / "app.py", root=tmp_path))


# -- links and odd files -----------------------------------------------------------------------------------------------


def test_links(project, tmp_path):
    """Within: a link. To a file outside: that file. Nowhere: left out, with a note. To a folder outside: refused."""
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
    """A pipe stays here; names with spaces, newlines, quotes and bytes that are no text travel."""
    os.mkfifo(project / "pipe")
    odd = ["with space.py", 'quote".py', "new\nline.py", os.fsdecode(b"latin\xe9.py"), "é.py", "-dash", "*star"]
    for name in odd:
        (project / name).write_text(name.encode("utf-8", "surrogateescape").hex())
    snapshot = take(project)
    assert set(odd) <= names(snapshot)
    content = json.loads(zlib.decompress(snapshot.manifest_bytes()))
    assert set(odd) <= {entry[0] for entry in content["files"]}


def test_modes(project):
    """Executable or not is all that is kept."""
    (project / "app.py").chmod(0o775)
    (project / "pkg" / "mod.py").chmod(0o600)
    modes = {file.path: file.mode for file in take(project).files}
    assert (modes["app.py"], modes["pkg/mod.py"]) == (0o755, 0o644)


def test_a_file_that_vanishes_or_cannot_be_read_is_named(project, monkeypatch):
    """The file, and what to do."""
    original = Path.open

    def refusing(self, *args, **kwargs):
        if self.name == "mod.py":
            raise PermissionError(13, "Permission denied")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(CodeError, match=r"mod\.py: Permission denied"):
        take(project)


# -- the cap -----------------------------------------------------------------------------------------------------------


def test_the_cap_names_the_largest(project):
    """The cap, the total, the five largest, and both ways out."""
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
    """Same files, same bytes; the agent's own reader takes it, and lays the tree out."""
    from remote_agent.agent.spool.blobs import BlobStore, materialise, read_manifest

    (project / "link").symlink_to("app.py")
    snapshot = take(project)
    assert take(project).manifest_bytes() == snapshot.manifest_bytes()
    assert snapshot.hash == hashlib.sha256(snapshot.manifest_bytes()).hexdigest()
    manifest = read_manifest(snapshot.manifest_bytes())
    store = BlobStore(str(project.parent / "blobs"))
    for file in snapshot.files:
        store.put(file.sha256, snapshot.read(file.sha256))
    target = project.parent / "tree"
    materialise(store, manifest, str(target))
    assert (target / "pkg" / "mod.py").read_text() == "mod\n"
    assert (target / "link").read_text() == "app\n"
    again = Snapshot.of_manifest(project, snapshot.manifest_bytes(), snapshot.commit, snapshot.dirty)
    assert again.hash == snapshot.hash
    assert again.files == snapshot.files
    assert again.read(snapshot.files[0].sha256) == snapshot.read(snapshot.files[0].sha256)


def test_a_second_run_reads_nothing(project, tmp_path):
    """Unchanged files are known by size, times and inode; what changed is read again."""
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


def test_what_was_written_just_now_is_not_taken_for_at_rest(project):
    """A file may be written again in the same tick of the clock: its hash is not remembered."""
    assert take(project).hashed == 5
    assert take(project).hashed == 5


def test_a_damaged_memory_is_no_memory(project, own_cache):
    """Whatever lies in the cache folder, the hashes are right."""
    before = take(project).hash
    for path in (own_cache / "hydra-remote-launcher" / "hashes").glob("*.json"):
        for text in (
            "{",
            "[]",
            '{"version": 99}',
            '{"version": 1, "files": {"app.py": [1]}}',
            '{"version": 1, "files": 3}',
        ):
            path.write_text(text)
            assert take(project).hash == before


def test_the_cache_is_ours_alone_and_may_be_missing(project, own_cache, monkeypatch):
    """0600 in 0700; a home that cannot be written costs time only."""
    snapshot = take(project)
    for path in own_cache.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    blocked = own_cache / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert take(project).hash == snapshot.hash


def test_an_edit_after_the_run_began_changes_nothing(project):
    """A host that is reached later gets what was hashed; where that is kept nowhere, the file is named."""
    snapshot = take(project)
    digest = next(file.sha256 for file in snapshot.files if file.path == "app.py")
    write(project, {"app.py": "edited later\n"})
    assert snapshot.read(digest) == b"app\n"
    (project / "app.py").unlink()
    assert snapshot.read(digest) == b"app\n"
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    with pytest.raises(CodeError, match=r"app\.py changed after the run began"):
        snapshot.read(digest)


def test_a_file_that_does_not_stop_changing_is_named(project, monkeypatch):
    """Neither half of a file nor a mixture is ever hashed."""
    real = os.fstat
    count = iter(range(10**6))

    def changing(fd):
        status = list(real(fd))
        return types.SimpleNamespace(st_size=status[6], st_mtime_ns=next(count), st_ctime_ns=0, st_ino=1)

    monkeypatch.setattr(file_hashes.os, "fstat", changing)
    with pytest.raises(CodeError, match="does not stop changing"):
        take(project)


def test_kept_content_has_a_cap(tmp_path):
    """The oldest goes first; what was altered is not given out."""
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
    """What lies in the snapshot, in the order it has here; nothing that stays here."""
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
    """They import from folders that are not on the path."""
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
    """The working folder as it is called there: itself, the nearest one that travels, or the root."""
    write(project, {"data/inner/x": ""})
    snapshot = take(project)
    assert snapshot.relative(project) == "."
    assert snapshot.relative(project / "pkg") == "pkg"
    assert snapshot.relative(project / "pkg" / "mod.py") == "pkg/mod.py"
    assert snapshot.relative(project / "data" / "inner") == "."
    assert snapshot.relative(tmp_path) == "."


@pytest.mark.slow
def test_many_files_are_fast_enough_to_be_taken_for_granted(tmp_path):
    """A thousand files: the second time nothing is read, and git is asked twice."""
    root = tmp_path / "many"
    write(root, {f"d{index % 40}/f{index}.py": f"value = {index}\n" for index in range(1000)})
    git(root, "init", "-q")
    asked = []
    original = project_files._git

    def counting(folder, *arguments):
        asked.append(arguments)
        return original(folder, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_hashes, "_REST_NS", -(10**18))
        patch.setattr(project_files, "_git", counting)
        assert take(root).hashed == 1000
        asked.clear()
        snapshot = take(root)
    assert snapshot.hashed == 0
    assert len(snapshot.files) == 1000
    assert len(asked) == 2
