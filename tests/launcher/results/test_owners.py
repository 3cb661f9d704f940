"""Jobs that share an output directory do not overwrite each other's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.results.output_folder import OutputFolder
from launcher.results.owners import Ownership, own_folder
from tests.launcher.results.refusals import reason


class TestSharing:
    """Jobs of one run that write to the same folder."""

    def folders(self, path: Path, *nums: int, started: float = 0.0, is_shared: bool = False) -> list[OutputFolder]:
        """The folders of jobs that run at the same time."""
        ownership = Ownership(started, lambda num, folder: is_shared)
        return [OutputFolder(path, num, ownership.of(num, path)) for num in nums]

    def put(self, folder: OutputFolder, path: str, data: bytes, how: str) -> None:
        """Write a file, in one piece or in two."""
        if how == "small":
            folder.write(path, 0o644, data)
            return
        half = len(data) // 2
        folder.write_chunk(path, 0o644, len(data), 0, data[:half])
        folder.write_chunk(path, 0o644, len(data), half, data[half:])

    @pytest.mark.parametrize("how", ["small", "long"])
    def test_another_jobs_file_is_kept(self, tmp_path, how):
        """If the contents differ, the later file gets a name with its job's number. If they are the same, nothing is
        reported.
        """
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

    def test_a_job_overwrites_its_own_files(self, tmp_path):
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

    def test_a_file_of_a_job_that_has_ended_is_kept(self, tmp_path):
        """Nobody is recorded as its owner, and it is younger than the run."""
        ownership = Ownership(0.0, lambda num, folder: True)
        OutputFolder(tmp_path, 1, ownership.of(1, tmp_path)).write("f", 0o644, b"one")
        two = OutputFolder(tmp_path, 2, ownership.of(2, tmp_path))
        two.write("f", 0o644, b"two")
        assert two.apart == [("f", "f.job-2")]

    def test_files_from_before_the_run_are_replaced(self, tmp_path):
        """As if a program opened them to write."""
        (tmp_path / "f").write_text("before")
        later = (tmp_path / "f").stat().st_ctime + 1
        (one,) = self.folders(tmp_path, 1, started=later, is_shared=True)
        one.write("f", 0o644, b"one")
        assert one.apart == []
        assert (tmp_path / "f").read_bytes() == b"one"

    def test_files_that_others_write_during_the_run_are_kept(self, tmp_path):
        """Others are, for example, another program, or a hook on the controller."""
        (one,) = self.folders(tmp_path, 1)
        (tmp_path / "f").write_text("somebody")
        one.write("f", 0o644, b"one")
        assert one.apart == [("f", "f.job-1")]

    def test_a_resumed_run_replaces_incomplete_files_of_its_job(self, tmp_path):
        """Unless jobs share the folder, because then nobody can tell whose file it is."""
        for is_shared, apart in ((False, []), (True, [("f", "f.job-1")])):
            ownership = Ownership(10.0, lambda num, folder, told=is_shared: told)
            ownership.resume(0.0)
            (tmp_path / "f").write_text("half")
            one = OutputFolder(tmp_path, 1, ownership.of(1, tmp_path))
            one.write("f", 0o644, b"whole")
            assert one.apart == apart

    def test_links_and_folders_of_several_jobs(self, tmp_path):
        """A link with the same text exists already. Another link gets another name. Folders are shared."""
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

    def test_a_file_is_refused_if_its_other_name_is_taken_too(self, tmp_path):
        """It is refused by name, and neither file is changed."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        one.write("f", 0o644, b"one")
        one.write("f.job-2", 0o644, b"one, too")
        one.write("n" * 253, 0o644, b"one")
        two.write("f", 0o644, b"two")
        two.write("n" * 253, 0o644, b"two")
        assert "also f.job-2" in reason(two, "f")
        assert "too long" in reason(two, "n" * 253)
        assert (tmp_path / "o" / "f.job-2").read_bytes() == b"one, too"

    def test_long_files_of_several_jobs_at_once(self, tmp_path):
        """Until they are complete, they have separate names."""
        one, two = self.folders(tmp_path / "o", 1, 2)
        for half in (0, 1):
            one.write_chunk("one", 0o644, 2, half, b"1")
            two.write_chunk("two", 0o644, 2, half, b"2")
        assert (tmp_path / "o" / "one").read_bytes() == b"11"
        assert (tmp_path / "o" / "two").read_bytes() == b"22"

    def test_an_attempts_output_is_set_aside_while_the_folder_is_moved_away(self, tmp_path):
        """It goes to the open folder, wherever that is now. If none is open, it is moved when the folder is back,
        before another attempt prints.
        """
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

    def test_an_attempt_without_output_takes_nothing_from_the_next_one(self, tmp_path):
        """This holds even if the descriptors were closed in the meantime and the folder is opened again."""
        folder = OutputFolder(tmp_path / "0", 0, aside=[1])
        for offset in (0, 1):
            folder.wait_until_it_may_be_made()
            folder.write_stream("stdout", offset, b"2")
            folder.release()
        assert (tmp_path / "0" / ".launcher" / "stdout").read_bytes() == b"22"

    def test_output_is_kept_apart_if_two_folders_are_one_to_the_disk(self, tmp_path):
        """Two names differ only in case (here a link), so the run does not know that the jobs share a folder."""
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

    def test_output_of_jobs_that_share_a_folder_is_kept_apart(self, tmp_path):
        """Also that of an earlier attempt. A job that had the folder alone when it began to print has the usual place."""
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
