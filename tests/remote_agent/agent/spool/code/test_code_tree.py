"""The tree of a run's code: laid out whole or not at all, and kept for a later run as far as nobody has touched it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.code.files.manifest import SnapshotFile, in_parts
from remote_agent.agent.spool.code import code_tree
from remote_agent.agent.spool.code.blobs import BlobStore
from remote_agent.agent.spool.code.code_tree import CodeTree, Missing
from remote_agent.system.private_files import SpoolError
from tests.examples import examples
from tests.requirements import READS_PROC

Files = dict[str, bytes]


def sha(data: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(data).hexdigest()


class Host:
    """A cache folder, and a spool for each run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = BlobStore(str(root / "blobs"))
        self.runs = 0

    def manifest(self, files: Files, links: list[tuple[str, str]] | None = None, *, has_contents: bool = True) -> str:
        """Put a snapshot into the cache. Returns the name of its manifest."""
        entries = [
            [path, 0o755 if path.endswith(".sh") else 0o644, len(data), sha(data)] for path, data in files.items()
        ]
        manifest = zlib.compress(json.dumps({"version": 1, "files": entries, "links": links or []}).encode())
        self.store.put(sha(manifest), manifest)
        for data in files.values() if has_contents else ():
            self.store.put(sha(data), data)
        return sha(manifest)

    def run(self) -> CodeTree:
        """The tree of a new run."""
        self.runs += 1
        spool = self.root / f"run{self.runs}"
        spool.mkdir()
        return CodeTree(self.store, str(self.root), str(spool))

    def lay_out(self, root: str) -> Path:
        """Lay a snapshot out for a new run that stays."""
        tree = self.run()
        assert tree.advance(root) is None
        return Path(tree.path)

    @property
    def kept(self) -> list[Path]:
        """The trees that are kept."""
        folder = self.root / "trees"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without anything."""
    return Host(tmp_path)


def content_of(tree: Path) -> dict[str, bytes | str]:
    """Every file of a tree with its content, every link with its target, and every folder that is empty."""
    found: dict[str, bytes | str] = {}
    for path in tree.rglob("*"):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = "empty"
    return found


class TestTree:
    """The tree of a snapshot."""

    def test_a_tree_is_written(self, host):
        """Files in folders, executables, links; private, whatever the umask is."""
        manifest = host.manifest({"a/b/c.py": b"c", "run.sh": b"#!", "empty": b""}, [("a/link", "b/c.py")])
        before = os.umask(0)
        try:
            code = host.lay_out(manifest)
        finally:
            os.umask(before)
        assert (code / "a" / "b" / "c.py").read_bytes() == b"c"
        assert (code / "a" / "link").read_bytes() == b"c"
        assert (code / "run.sh").stat().st_mode & 0o777 == 0o700
        assert (code / "empty").stat().st_mode & 0o777 == 0o600
        assert (code / "a").stat().st_mode & 0o777 == 0o700

    @pytest.mark.slow
    @READS_PROC
    def test_a_tree_may_have_many_folders(self, host):
        """More than there are open descriptors, in any order."""
        files = {f"d{number % 250}/e{number}/f": b"x" for number in range(600)}
        root = host.manifest(files)
        gc.collect()  # what other tests left open
        before = len(os.listdir("/proc/self/fd"))
        code = host.lay_out(root)
        assert len(os.listdir("/proc/self/fd")) == before
        assert len([path for path in code.rglob("f") if path.is_file()]) == 600

    def test_a_tree_is_complete_or_missing(self, host):
        """If a content is missing, there is no tree. When it has come, the tree is made."""
        root = host.manifest({"a": b"a", "b": b"b"})
        os.unlink(host.store.path(sha(b"b")))
        tree = host.run()
        assert tree.advance(root) == Missing([sha(b"b")], is_manifest=False)
        assert not tree.is_complete
        host.store.put(sha(b"b"), b"b")
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == {"a": b"a", "b": b"b"}
        assert sorted(os.listdir(os.path.dirname(tree.path))) == ["code", "code.complete"]

    def test_the_manifest_comes_first(self, host):
        """Nothing else is known to be missing before."""
        root = host.manifest({"a": b"a"})
        os.unlink(host.store.path(root))
        assert host.run().advance(root) == Missing([root], is_manifest=True)

    def test_content_that_was_altered_is_not_used(self, host):
        """It is removed from the cache, so that it is requested again."""
        root = host.manifest({"a": b"a", "b": b"right"})
        Path(host.store.path(sha(b"right"))).write_bytes(b"wrong")
        tree = host.run()
        with pytest.raises(SpoolError, match="altered"):
            tree.advance(root)
        assert tree.advance(root) == Missing([sha(b"right")], is_manifest=False)
        host.store.put(sha(b"right"), b"right")
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == {"a": b"a", "b": b"right"}

    def test_an_existing_tree_is_not_changed(self, host):
        """A job may have written to it."""
        root = host.manifest({"a": b"a"})
        tree = host.run()
        assert tree.advance(root) is None
        (Path(tree.path) / "a").write_bytes(b"by a job")
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == {"a": b"by a job"}


@pytest.mark.slow
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a/b", "../x", "/x", "l", "l/x", "a/../../x"]), st.binary(max_size=3)),
        max_size=5,
    ),
    st.lists(
        st.tuples(st.sampled_from(["l", "a", "m"]), st.sampled_from(["a", "..", "../outside", "/tmp", "l/../.."])),
        max_size=3,
    ),
)
def test_no_snapshot_writes_outside_its_tree(tmp_path_factory, files, links):
    """Fuzz: whatever the manifest says, through whatever links, it is refused or stays inside."""
    root = tmp_path_factory.mktemp("tree")
    (root / "outside").mkdir()
    host = Host(root)
    tree = host.run()
    entries = []
    for path, data in files:
        host.store.put(sha(data), data)
        entries.append([path, 0o644, len(data), sha(data)])
    manifest = zlib.compress(json.dumps({"version": 1, "files": entries, "links": links}).encode())
    host.store.put(sha(manifest), manifest)
    try:
        tree.advance(sha(manifest))
    except (SpoolError, OSError):
        assert not tree.is_complete
    assert os.listdir(root / "outside") == []
    assert {path.name for path in root.iterdir()} <= {"outside", "blobs", "run1"}
    assert {path.name for path in (root / "run1").iterdir()} <= {"code", "code.part", "code.complete"}
    for path in Path(tree.path).rglob("*"):
        assert path.is_symlink() or path.resolve().is_relative_to(tree.path)


FILES: Files = {f"pkg{number % 7}/module_{number}.py": f"VALUE = {number:04}\n".encode() for number in range(30)}


class Counts:
    """How many contents are copied, and how many files are read again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copied = self.read = 0
        copy, check = code_tree._copy, code_tree._has_content

        def copying(*arguments: Any) -> None:
            self.copied += 1
            copy(*arguments)

        def checking(*arguments: Any) -> bool:
            self.read += 1
            return check(*arguments)

        monkeypatch.setattr(code_tree, "_copy", copying)
        monkeypatch.setattr(code_tree, "_has_content", checking)

    def new(self) -> tuple[int, int]:
        """(copied, read) since the last call."""
        counts = (self.copied, self.read)
        self.copied = self.read = 0
        return counts


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Counts from now on."""
    return Counts(monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree of so few files counts as large."""
    monkeypatch.setattr(code_tree, "_MIN_FILES", 20)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's clock has gone on when an index is begun."""
    clock = code_tree._disk_clock
    monkeypatch.setattr(code_tree, "_disk_clock", lambda near: clock(near) + 10**9)


def by_writing(file: Path) -> None:
    """The same size, another content."""
    file.write_bytes(b"VALUE = 9999\n")


def by_writing_with_old_times(file: Path) -> None:
    """As a tool that sets the time back."""
    status = file.stat()
    by_writing(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_replacing(file: Path) -> None:
    """Another file under the name."""
    other = file.with_name("other")
    other.write_bytes(b"VALUE = 9999\n")
    other.rename(file)


def by_linking(file: Path) -> None:
    """A link to a file that has the same content."""
    other = file.parent.parent.parent / "elsewhere.py"
    file.rename(other)
    file.symlink_to(other)


def by_a_folder(file: Path) -> None:
    """A folder under the name."""
    file.unlink()
    file.mkdir()
    (file / "x").write_bytes(b"x")


def by_removing_its_folder(file: Path) -> None:
    """And a link to elsewhere in its place."""
    file.parent.rename(file.parent.parent.parent / "moved")
    file.parent.symlink_to(file.parent.parent.parent / "moved")


def by_a_locked_folder(file: Path) -> None:
    """That nobody may list."""
    file.chmod(0)
    file.parent.chmod(0)


@READS_PROC
@pytest.mark.usefixtures("old", "small")
class TestKept:
    """A run's tree goes to the next run of the same code."""

    def keep(self, host: Host, root: str) -> None:
        """A run that lays a snapshot out, and ends."""
        tree = host.run()
        assert tree.advance(root) is None
        tree.keep()
        assert not Path(tree.path).exists()

    def test_the_next_run_copies_and_reads_nothing(self, host, counts):
        """It has the tree without the manifest and the contents, which may be gone from the cache."""
        root = host.manifest(FILES, [("link.py", "pkg0/module_0.py")])
        self.keep(host, root)
        assert counts.new() == (len(FILES), 0)
        host.store = BlobStore(str(host.root / "none"))
        for _ in range(2):
            tree = host.run()
            assert tree.advance(root) is None
            assert content_of(Path(tree.path)) == {**FILES, "link.py": "pkg0/module_0.py"}
            assert counts.new() == (0, 0)
            tree.keep()
        assert len(host.kept) == 1

    @pytest.mark.parametrize(
        "change",
        [
            by_writing,
            by_writing_with_old_times,
            by_replacing,
            by_linking,
            by_a_folder,
            by_removing_its_folder,
            by_a_locked_folder,
            Path.unlink,
            lambda file: file.chmod(0o444),
        ],
    )
    def test_what_a_job_changed_is_laid_out_again(self, host, counts, change):
        """Whatever it did with a file, and whatever the times say."""
        root = host.manifest(FILES)
        tree = host.run()
        assert tree.advance(root) is None
        change(Path(tree.path) / "pkg3/module_3.py")
        tree.keep()
        counts.new()
        again = host.lay_out(root)
        assert content_of(again) == FILES
        assert {path.stat().st_mode & 0o777 for path in again.rglob("*.py")} == {0o600}
        copied, _ = counts.new()
        assert 1 <= copied < 10

    def test_what_a_job_left_is_removed(self, host):
        """Files, folders, compiled modules and links."""
        root = host.manifest(FILES)
        tree = host.run()
        assert tree.advance(root) is None
        code = Path(tree.path)
        (code / "pkg1" / "__pycache__").mkdir()
        (code / "pkg1" / "__pycache__" / "module_1.cpython-311.pyc").write_bytes(b"stale")
        (code / "results" / "deep").mkdir(parents=True)
        (code / "results" / "deep" / "x").write_bytes(b"x")
        (code / "pkg2" / "link").symlink_to(host.root)
        (code / "data.txt").write_bytes(b"x")
        tree.keep()
        assert content_of(host.lay_out(root)) == FILES
        assert (host.root / "blobs").is_dir()

    def test_a_file_as_new_as_the_index_is_read_again(self, host, counts, monkeypatch):
        """It may have changed within the same tick of the disk's clock, and would look the same."""
        root = host.manifest(FILES)
        monkeypatch.setattr(code_tree, "_disk_clock", lambda near: 0)
        self.keep(host, root)
        monkeypatch.undo()
        counts = Counts(monkeypatch)
        # It changes within the tick: its line in the index is what it would be.
        (kept,) = host.kept
        by_writing(kept / "code" / "pkg3/module_3.py")
        index = code_tree._read_index(str(kept / "index"))
        mode, digest, _ = index.files["pkg3/module_3.py"].split(" ", 2)
        status = os.lstat(kept / "code" / "pkg3/module_3.py")
        (kept / "index").unlink()
        index.files["pkg3/module_3.py"] = code_tree._line(mode, digest, status)
        code_tree._write_index(str(kept / "index"), index)
        tree = host.run()
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == FILES
        assert counts.new() == (1, len(FILES))

    def test_after_an_edit_only_that_file_is_copied(self, host, counts):
        """A deleted one goes, a new one comes, one whose mode changed is made again."""
        self.keep(host, host.manifest({**FILES, "run.py": b"#!"}))
        counts.new()
        edited = {**FILES, "pkg3/module_3.py": b"VALUE = 7\n", "new/module.py": b"new", "run.sh": b"#!"}
        del edited["pkg4/module_4.py"]
        again = host.lay_out(host.manifest(edited))
        assert content_of(again) == edited
        assert counts.new() == (3, 0)

    def test_what_is_missing_is_only_what_the_tree_lacks(self, host, counts):
        """Contents that the tree has are not requested, though the cache has lost them."""
        self.keep(host, host.manifest(FILES))
        host.store = BlobStore(str(host.root / "empty"))
        edited = {**FILES, "pkg3/module_3.py": b"VALUE = 7\n"}
        root = host.manifest(edited, has_contents=False)
        tree = host.run()
        assert tree.advance(root) == Missing([sha(b"VALUE = 7\n")], is_manifest=False)
        host.store.put(sha(b"VALUE = 7\n"), b"VALUE = 7\n")
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == edited

    def test_a_manifest_may_come_in_parts(self, host, counts):
        """The tree of the same code needs none of them. After an edit, those that changed are named, and then the contents."""
        contents = {f"pkg{number % 7}/module_{number}.py": f"VALUE = {number:04}\n".encode() for number in range(130)}
        files = [SnapshotFile(path, 0o644, len(data), sha(data)) for path, data in contents.items()]
        root, parts = in_parts(files, ())
        tree = host.run()
        assert tree.advance(root) == Missing([root], is_manifest=True)
        host.store.put(root, parts[root])
        below = tree.advance(root)
        assert below == Missing(sorted(set(parts) - {root}), is_manifest=True)
        for data in (*parts.values(), *contents.values()):
            host.store.put(sha(data), data)
        assert tree.advance(root) is None
        tree.keep()
        counts.new()
        path, mode, size, _ = files[3]
        files[3] = SnapshotFile(path, mode, size, sha(b"VALUE = 9999\n"))
        edited, new = in_parts(files, ())
        host.store.put(edited, new[edited])
        tree = host.run()
        assert tree.advance(edited) == Missing(sorted(set(new) - set(parts) - {edited}), is_manifest=True)
        for data in new.values():
            host.store.put(sha(data), data)
        assert tree.advance(edited) == Missing([sha(b"VALUE = 9999\n")], is_manifest=False)
        host.store.put(sha(b"VALUE = 9999\n"), b"VALUE = 9999\n")
        assert tree.advance(edited) is None
        assert content_of(Path(tree.path)) == {**contents, path: b"VALUE = 9999\n"}
        assert counts.new() == (1, 0)

    def test_other_code_leaves_the_tree_alone(self, host):
        """A project that shares less than half of the files is laid out by itself."""
        self.keep(host, host.manifest(FILES))
        other = {**{f"other/{number}": b"%d" % number for number in range(30)}, **dict(list(FILES.items())[:5])}
        assert content_of(host.lay_out(host.manifest(other))) == other
        assert len(host.kept) == 1

    def test_two_runs_at_once_have_a_tree_each(self, host):
        """The second one lays it out again."""
        root = host.manifest(FILES)
        self.keep(host, root)
        first, second = host.lay_out(root), host.lay_out(root)
        by_writing(first / "pkg3/module_3.py")
        assert content_of(second) == FILES

    @pytest.mark.parametrize("damage", ["version", "bytes", "empty", "none"])
    def test_a_tree_whose_index_is_damaged_is_not_used(self, host, counts, damage):
        """Nor one of another version."""
        root = host.manifest(FILES)
        self.keep(host, root)
        (kept,) = host.kept
        index = kept / "index"
        data = index.read_bytes()
        if damage == "none":
            index.unlink()
        else:
            index.write_bytes({"version": b"9" + data[1:], "bytes": data.replace(b"pkg3", b"pkg4", 1)}.get(damage, b""))
        counts.new()
        assert content_of(host.lay_out(root)) == FILES
        assert counts.new() == (len(FILES), 0)

    def test_a_tree_in_which_a_process_works_goes_with_its_run(self, host):
        """It could write into the tree of a later run."""
        root = host.manifest(FILES)
        tree = host.run()
        assert tree.advance(root) is None
        with subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=Path(tree.path) / "pkg1"
        ) as process:
            tree.keep()
            assert not host.kept
            process.communicate(b"\n")
        tree.keep()
        assert len(host.kept) == 1

    def test_only_the_newest_trees_are_kept(self, host):
        """The others go with the spool of the run that ends."""
        for number in range(6):
            self.keep(host, host.manifest({f"{number}/{name}": data for name, data in FILES.items()}))
        assert len(host.kept) == 4
        assert content_of(host.kept[-1] / "code") == {f"5/{name}": data for name, data in FILES.items()}

    def test_a_small_tree_is_not_kept(self, host):
        """It is laid out as fast."""
        tree = host.run()
        assert tree.advance(host.manifest({"a": b"a"})) is None
        tree.keep()
        assert not host.kept

    def test_an_agent_that_died_over_a_tree_leaves_nothing_of_it(self, host):
        """The next agent of the run begins anew."""
        root = host.manifest(FILES)
        self.keep(host, root)
        tree = host.run()
        (host.kept[0]).rename(tree.path + ".taken")
        Path(tree.path + ".part").mkdir()
        (Path(tree.path + ".part") / "half").write_bytes(b"half")
        assert tree.advance(root) is None
        assert content_of(Path(tree.path)) == FILES

    def test_a_full_disk_costs_the_index_only(self, host, monkeypatch):
        """The run has its code. The tree is not kept."""

        def full(path: str, index: Any) -> None:
            Path(path).write_bytes(b"1 half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(code_tree, "_write_index", full)
        root = host.manifest(FILES)
        tree = host.run()
        assert tree.advance(root) is None
        tree.keep()
        assert content_of(Path(tree.path)) == FILES
        assert not host.kept
