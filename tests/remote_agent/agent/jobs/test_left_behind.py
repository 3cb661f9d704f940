"""What leftover processes of a job still do to its output directory."""

import os
import subprocess
import sys

from remote_agent.agent.jobs.left_behind import still_changing


def test_files_that_a_process_has_open_for_writing_are_named(tmp_path):
    """Not files that it reads, nor files elsewhere. File times do not matter."""
    for name in ("read", "written", "both"):
        (tmp_path / "out" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "sub" / name).write_text("x")
    code = (
        "import sys; a = open('out/sub/read'); b = open('out/sub/written', 'a'); c = open('out/sub/both', 'r+');"
        "d = open('elsewhere', 'w'); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        found = still_changing(str(tmp_path / "out"), 4e9, [child.pid])
        child.stdin.close()
    assert found == ["sub/both", "sub/written"]


def test_files_that_have_changed_since_are_named(tmp_path):
    """A process that opens its file for each line may have none open at the moment of the check."""
    for name, when in (("before", 1000), ("at", 2000), ("after", 2001)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (when, when))
    assert still_changing(str(tmp_path), 2000.0, []) == ["after"]


def test_only_as_many_files_are_named_as_a_message_can_hold(tmp_path):
    """Twenty. A missing directory has none."""
    for number in range(50):
        (tmp_path / str(number)).write_text("x")
    assert len(still_changing(str(tmp_path), 0.0, [])) == 20
    assert still_changing(str(tmp_path / "none"), 0.0, [os.getpid(), 999_999_999]) == []
