"""Jobs that share an output directory keep each other's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.results.output_folder import OutputFolder
from launcher.results.owners import Ownership, own_folder
from tests.launcher.results.refusals import reason


class TestSharing:
    """Jobs of one run that write to one folder."""

    def folders(self, path: Path, *nums: int, started: float = 0.0, is_shared: bool = False) -> list[OutputFolder]:
        """Of jobs that are under way at the same time."""
        ownership = Ownership(started, lambda num, folder: is_shared)
        return [OutputFolder(path, num, ownership.of(num, path)) for num in nums]

    def put(self, folder: OutputFolder, path: str, data: bytes, how: str) -> None:
        """A file, in one piece or in two."""
        if how == "small":
            folder.write(path, 0o644, data)
            return
        half = len(data) // 2
        folder.write_chunk(path, 0o644, len(data), 0, data[:half])
        folder.write_chunk(path, 0o644, len(data), half, data[half:])

    @pytest.mark.parametrize("how", ["small", "long"])
    def test_what_another_job_wrote_is_kept(self, tmp_path, how):
        """The later one lies beside it, under a name with its number, where its contents differ; where they are the same nothing is told."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        for name in ("app.log", "a/scores.csv", "same", "mine-2"):
            self.put(one, name, b"of one", how)
        self.put(two, "app.log", b"of two", how)
        self.put(two, "a/scores.csv", b"of 2, and more", how)
        self.put(two, "same", b"of one", how)
        self.put(two, "own", b"of two", how)
        assert two.apart == [("app.log", "app.job-2.log"), ("a/scores.csv", "a/scores.job-2.csv")]
        assert (one.refused, one.apart, two.refused) == ([], [], [])
        found = {str(path.relative_to(one.path)): path.read_bytes() for path in one.path.rglob("*") if path.is_file()}
        assert found == {
            **dict.fromkeys(("app.log", "a/scores.csv", "same", "mine-2"), b"of one"),
            "app.job-2.log": b"of two",
            "a/scores.job-2.csv": b"of 2, and more",
            "own": b"of two",
        }

    def test_a_job_writes_over_its_own(self, tmp_path):
        """The same files come again on another link."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        one.write("f", 0o644, b"one")
        for data in (b"first", b"second"):
            two.restart()
            two.write("f", 0o644, data)
            two.write("g", 0o644, data)
        assert two.apart == [("f", "f.job-2")]
        assert (tmp_path / "o" / "f.job-2").read_bytes() == b"second"
        assert (tmp_path / "o" / "g").read_bytes() == b"second"

    def test_a_job_that_comes_when_the_other_is_gone(self, tmp_path):
        """What is there has nobody's name on it, and is younger than the run."""
        ownership = Ownership(0.0, lambda num, folder: True)
        OutputFolder(tmp_path, 1, ownership.of(1, tmp_path)).write("f", 0o644, b"one")
        two = OutputFolder(tmp_path, 2, ownership.of(2, tmp_path))
        two.write("f", 0o644, b"two")
        assert two.apart == [("f", "f.job-2")]

    def test_what_was_there_before_the_run_gives_way(self, tmp_path):
        """As it does where a program opens it to write."""
        (tmp_path / "f").write_text("before")
        later = (tmp_path / "f").stat().st_ctime + 1
        (one,) = self.folders(tmp_path, 1, started=later, is_shared=True)
        one.write("f", 0o644, b"one")
        assert one.apart == []
        assert (tmp_path / "f").read_bytes() == b"one"

    def test_what_somebody_else_writes_while_the_run_goes_on_is_kept(self, tmp_path):
        """Another program, or a hook on the controller."""
        (one,) = self.folders(tmp_path, 1)
        (tmp_path / "f").write_text("somebody")
        one.write("f", 0o644, b"one")
        assert one.apart == [("f", "f.job-1")]

    def test_a_run_that_was_taken_up_again_replaces_what_its_job_left_half(self, tmp_path):
        """Unless jobs share the folder, where it cannot be told whose it is."""
        for is_shared, apart in ((False, []), (True, [("f", "f.job-1")])):
            ownership = Ownership(10.0, lambda num, folder, told=is_shared: told)
            ownership.resume(0.0)
            (tmp_path / "f").write_text("half")
            one = OutputFolder(tmp_path, 1, ownership.of(1, tmp_path))
            one.write("f", 0o644, b"whole")
            assert one.apart == apart

    def test_links_and_folders_of_several_jobs(self, tmp_path):
        """A link that says the same is there already; another one lies beside it; folders are shared."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        for folder, last in ((one, "1.pt"), (two, "2.pt")):
            folder.write(last, 0o644, b"x")
            folder.add_link("last.pt", last)
            folder.add_link("here", ".")
            folder.add_folder("empty", 5)
        assert two.apart == [("last.pt", "last.job-2.pt")]
        assert os.readlink(tmp_path / "o" / "last.pt") == "1.pt"
        assert os.readlink(tmp_path / "o" / "last.job-2.pt") == "2.pt"
        assert two.refused == []

    def test_a_name_that_is_taken_beside_it_too(self, tmp_path):
        """Is refused by name: neither file is touched."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        one.write("f", 0o644, b"one")
        one.write("f.job-2", 0o644, b"one, too")
        one.write("n" * 253, 0o644, b"one")
        two.write("f", 0o644, b"two")
        two.write("n" * 253, 0o644, b"two")
        assert "f.job-2 too" in reason(two, "f")
        assert "too long" in reason(two, "n" * 253)
        assert (tmp_path / "o" / "f.job-2").read_bytes() == b"one, too"

    def test_long_files_of_several_jobs_at_once(self, tmp_path):
        """While they are not whole they have names of their own."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        for half in (0, 1):
            one.write_chunk("one", 0o644, 2, half, b"1")
            two.write_chunk("two", 0o644, 2, half, b"2")
        assert (tmp_path / "o" / "one").read_bytes() == b"11"
        assert (tmp_path / "o" / "two").read_bytes() == b"22"

    def test_what_an_attempt_printed_is_set_aside_while_the_folder_is_away(self, tmp_path):
        """Into the folder that is open, wherever that is now; else as soon as it is back, before another attempt prints there."""
        first = OutputFolder(tmp_path / "run" / "0", 0)
        first.write_stream("stdout", 0, b"of the first attempt")
        (tmp_path / "run").rename(tmp_path / "away")
        first.aside.append(1)
        first.set_aside_pending()
        first.close()
        assert first.aside == []
        assert (tmp_path / "away" / "0" / ".launcher" / "attempt-1" / "stdout").read_bytes() == b"of the first attempt"

        moved = OutputFolder(tmp_path / "away" / "0", 0)
        moved.write_stream("stdout", 0, b"of the second")
        moved.close()
        second = OutputFolder(tmp_path / "run" / "0", 0, aside=[2])
        second.set_aside_pending()
        assert second.aside == [2]
        assert not (tmp_path / "run").exists()
        third = OutputFolder(
            tmp_path / "run" / "0", 0, aside=second.aside, hold=lambda: (tmp_path / "away").rename(tmp_path / "run")
        )
        third.wait_until_it_may_be_made()
        third.write_stream("stdout", 0, b"3")
        own = tmp_path / "run" / "0" / ".launcher"
        assert (own / "attempt-2" / "stdout").read_bytes() == b"of the second"
        assert (own / "stdout").read_bytes() == b"3"

    def test_what_was_never_printed_takes_nothing_of_the_next_attempt(self, tmp_path):
        """Nor when the descriptors were closed meanwhile, and the folder is opened again."""
        folder = OutputFolder(tmp_path / "0", 0, aside=[1])
        for offset in (0, 1):
            folder.wait_until_it_may_be_made()
            folder.write_stream("stdout", offset, b"2")
            folder.release()
        assert (tmp_path / "0" / ".launcher" / "stdout").read_bytes() == b"22"

    def test_what_jobs_print_is_kept_apart_where_their_folders_are_one_to_the_disk(self, tmp_path):
        """Two names that differ in case, as by a link here: their run does not know that they share a folder."""
        ownership = Ownership(0.0, lambda num, folder: False)
        (tmp_path / "X").mkdir()
        (tmp_path / "x").symlink_to("X")
        one = OutputFolder(tmp_path / "X", 1, ownership.of(1, tmp_path / "X"))
        two = OutputFolder(tmp_path / "x", 2, ownership.of(2, tmp_path / "x"))
        for folder, text in ((one, b"of one"), (two, b"of two")):
            folder.write_stream("stdout", 0, text)
            folder.write("model.txt", 0o644, text)
        assert (own_folder(tmp_path / "X", 1) / "stdout").read_bytes() == b"of one"
        assert (own_folder(tmp_path / "x", 2) / "stdout").read_bytes() == b"of two"
        assert (tmp_path / "X" / "model.txt").read_bytes() == b"of one"
        assert (tmp_path / "X" / "model.job-2.txt").read_bytes() == b"of two"
        assert two.apart == [("model.txt", "model.job-2.txt")]

    def test_what_jobs_print_is_kept_apart(self, tmp_path):
        """Also of an earlier attempt; who had the folder to itself when it began to print has the usual place."""
        ownership = Ownership(0.0, lambda num, folder: False)
        one = OutputFolder(tmp_path, 1, ownership.of(1, tmp_path))
        one.write_stream("stdout", 0, b"of one")
        two = OutputFolder(tmp_path, 2, ownership.of(2, tmp_path))
        two.write_stream("stdout", 0, b"of two, at first")
        two.set_aside(1)
        two.write_stream("stdout", 0, b"of two")
        one.write_stream("stdout", 6, b", still")
        assert (own_folder(tmp_path, 1) / "stdout").read_bytes() == b"of one, still"
        assert (own_folder(tmp_path, 2) / "stdout").read_bytes() == b"of two"
        assert (own_folder(tmp_path, 2) / "attempt-1" / "stdout").read_bytes() == b"of two, at first"
