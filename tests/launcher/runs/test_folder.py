"""A run claims its folder, by the lock, before anything is written, even if others begin at the same moment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import launcher
from launcher.app_run import _quoted
from launcher.config.lazy import made_now
from launcher.errors import RunError, UsageError
from launcher.runs import index
from launcher.runs.folder import Naming, claim, look
from launcher.runs.journal import FOLDER, Journal, JournalReader, lock_folder
from launcher.setup import folders
from launcher.setup.kinds.hydra import naming_of
from remote_agent.config.nodes import literal
from tests.hydra import apps

AT_ONCE = 6


def begin(folder: Path, naming: Naming = Naming.USER, run: str = "r") -> Journal:
    """A run that has begun there."""
    taken = claim(folder, naming)
    journal = Journal(taken.folder / FOLDER, taken.take_lock())
    journal.put_meta(run=run)
    journal.commit()
    return journal


class TestClaiming:
    """Several runs that want the same folder."""

    @pytest.mark.parametrize("naming", [Naming.NEW, Naming.MOMENT, Naming.TIME])
    def test_many_runs_at_once_get_a_folder_each(self, tmp_path: Path, naming: Naming) -> None:
        """If nobody chose the name. Each can begin its journal there."""
        ready = threading.Barrier(AT_ONCE)

        def one(number: int) -> Journal:
            ready.wait()
            return begin(tmp_path / "day" / "second", naming, str(number))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            journals = list(pool.map(one, range(AT_ONCE)))
        assert len({journal.folder for journal in journals}) == AT_ONCE
        assert {path.name.partition(".")[0] for path in (tmp_path / "day").iterdir()} == {"second"}
        for number, journal in enumerate(journals):
            assert JournalReader(journal.folder).meta()["run"] == str(number)
            journal.close()

    def test_only_one_of_many_runs_begins_in_a_folder_that_the_user_named(self, tmp_path: Path) -> None:
        """The errors of the others name the folder. The journal of the first is complete, and none was moved."""
        ready = threading.Barrier(AT_ONCE)
        begun: list[Journal] = []
        errors: list[str] = []

        def one(number: int) -> None:
            ready.wait()
            try:
                begun.append(begin(tmp_path / "mine", run=str(number)))
            except RunError as error:
                errors.append(str(error))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, range(AT_ONCE)))
        (journal,) = begun
        assert len(errors) == AT_ONCE - 1
        assert all(f"{tmp_path / 'mine'}: another run of this process" in error for error in errors)
        begun[0].close()
        assert "run" in JournalReader(journal.folder).meta()
        assert os.listdir(tmp_path / "mine") == [FOLDER]

    def test_the_journal_of_an_earlier_run_is_renamed_in_a_folder_that_the_user_named(self, tmp_path: Path) -> None:
        """It keeps its run's name."""
        begin(tmp_path / "mine", run="first").close()
        taken = claim(tmp_path / "mine", Naming.USER)
        assert (taken.folder, taken.earlier) == (tmp_path / "mine", "first")
        assert JournalReader(tmp_path / "mine" / f"{FOLDER}.first").meta()["run"] == "first"

    @pytest.mark.parametrize("naming", [Naming.MOMENT, Naming.NEW])
    def test_an_earlier_run_of_the_same_second_is_left_alone(self, tmp_path: Path, naming: Naming) -> None:
        """Otherwise its outputs would be overwritten."""
        begin(tmp_path / "12-00-00", run="first").close()
        assert claim(tmp_path / "12-00-00", naming).folder == tmp_path / "12-00-00.1"
        assert JournalReader(tmp_path / "12-00-00" / FOLDER).meta()["run"] == "first"

    def test_a_journal_that_cannot_be_read_is_kept(self, tmp_path: Path) -> None:
        """After a run or a disk that died early, the next run can still use the folder."""
        for _ in range(2):
            (tmp_path / "mine" / FOLDER).mkdir(parents=True)
            (tmp_path / "mine" / FOLDER / "journal.sqlite").write_bytes(b"no journal" * 1000)
            taken = claim(tmp_path / "mine", Naming.USER)
            assert taken.earlier is None
            taken.release()
        kept = sorted(os.listdir(tmp_path / "mine"))
        assert kept == [f"{FOLDER}.damaged", f"{FOLDER}.damaged.1"]

    def test_a_claim_that_is_not_used_leaves_nothing(self, tmp_path: Path) -> None:
        """It is released, or dropped. What was there before stays."""
        claim(tmp_path / "a" / "b", Naming.NEW).release()
        assert os.listdir(tmp_path / "a") == []
        (tmp_path / "kept").mkdir()
        claim(tmp_path / "kept", Naming.USER)
        assert os.listdir(tmp_path / "kept") == []

    def test_a_folder_that_is_renamed_while_another_run_waits_for_its_lock_is_not_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise two runs would hold one lock each, and write the same journal."""
        own = tmp_path / "mine" / FOLDER
        own.mkdir(parents=True)

        def renamed(fd: int, folder: Path, patience: int) -> None:
            monkeypatch.undo()
            os.rename(own, tmp_path / "aside")
            own.mkdir()

        monkeypatch.setattr("launcher.runs.journal_lock._lock", renamed)
        fd = lock_folder(own)
        there = os.stat(own / "lock")
        assert (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == (there.st_dev, there.st_ino)
        os.close(fd)

    @pytest.mark.slow
    def test_another_process_is_named(self, tmp_path: Path) -> None:
        """By its pid, which is not ours."""
        script = (
            "import sys; from pathlib import Path; from launcher.runs.folder import *; "
            "held = claim(Path(sys.argv[1]), Naming.USER); print('has it', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "mine")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"has it\n"
            with pytest.raises(RunError, match=rf"mine: the run is driven by another process \(pid {process.pid}\)"):
                claim(tmp_path / "mine", Naming.USER)
        finally:
            process.communicate()
        assert not (tmp_path / "mine").exists()
        claim(tmp_path / "mine", Naming.USER)

    @pytest.mark.parametrize("what", ["the folder", "the folder above", "our folder"])
    def test_a_file_in_the_place_of_the_folder_is_an_error(self, tmp_path: Path, what: str) -> None:
        """The error names it, and nothing waits."""
        folder = tmp_path / "above" / "mine"
        path = {"the folder": folder, "the folder above": folder.parent, "our folder": folder / FOLDER}[what]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        for naming in (Naming.USER, Naming.MOMENT):
            with pytest.raises(UsageError, match=r"results cannot be written to .*above/mine"):
                claim(folder, naming)
        assert path.read_text() == "mine"

    def test_the_lock_is_held_from_the_claim_to_the_journal(self, tmp_path: Path) -> None:
        """No other run can come in between."""
        taken = claim(tmp_path / "mine", Naming.USER)
        with pytest.raises(RunError, match="another run of this process"):
            lock_folder(tmp_path / "mine" / FOLDER, patience=0)
        journal = Journal(tmp_path / "mine" / FOLDER, taken.take_lock())
        taken.release()
        with pytest.raises(RunError, match="another run of this process"):
            claim(tmp_path / "mine", Naming.USER)
        journal.close()


class TestLooking:
    """A look at the folder that a run would get, without taking it."""

    @pytest.mark.parametrize("naming", list(Naming))
    def test_it_is_the_folder_that_is_taken_next(self, tmp_path: Path, naming: Naming) -> None:
        """Where nothing is, where a run has ended, and where one is driven. Nothing is made or changed by it."""
        folder = tmp_path / "day" / "second"
        assert look(folder, naming) == folder
        assert not (tmp_path / "day").exists()
        begin(folder, run="ended").close()
        there = sorted(tmp_path.rglob("*"))
        looked = look(folder, naming)
        assert sorted(tmp_path.rglob("*")) == there
        journal = begin(folder, naming, run="driven")
        assert journal.folder == looked / FOLDER
        if naming is Naming.USER:
            with pytest.raises(RunError, match="another run of this process is using this folder"):
                look(folder, naming)
        else:
            looked = look(folder, naming)
            taken = claim(folder, naming)
            assert taken.folder == looked
            taken.release()
        journal.close()

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        """A file is in its place, or above it."""
        (tmp_path / "file").touch()
        for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
            with pytest.raises(UsageError, match="results cannot be written to"):
                look(folder, Naming.USER)


def value(config: Any) -> Any:
    """A task."""
    return config.x


class TestFromPython:
    """Runs in threads of one process."""

    @pytest.mark.slow
    def test_runs_that_begin_in_one_second_have_a_folder_each(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of them complete, each with its own value: runs of `run`, `multirun` and `Session`."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(folders.time, "strftime", lambda form: "12-00-00" if "H" in form else "2026-01-01")
        ready = threading.Barrier(AT_ONCE)

        def one(number: int) -> Any:
            ready.wait()
            if number % 3 == 0:
                return launcher.run(value, {"x": number}).return_value
            if number % 3 == 1:
                return launcher.multirun(value, [{"x": number}])[0].return_value
            with launcher.Session.open() as session:
                assert sweep_dir(made_now(session.setup.root_config)) == str(session.folder)
                return session.submit(value, {"x": number}).result()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert list(pool.map(one, range(AT_ONCE))) == list(range(AT_ONCE))
        assert sorted(os.listdir("outputs/2026-01-01")) == ["12-00-00", "12-00-00.1"]
        assert len(os.listdir("multirun/2026-01-01")) == 4

    @pytest.mark.slow
    def test_a_second_run_in_a_named_folder_is_refused(self, tmp_path: Path) -> None:
        """The error names the folder, and the first run goes on."""
        with launcher.Session.open(folder=tmp_path / "mine") as session:
            with pytest.raises(RunError, match=r"mine: another run of this process"):
                launcher.run(value, {"x": 1}, folder=tmp_path / "mine")
            assert session.submit(value, {"x": 2}).result() == 2


def sweep_dir(config: Any) -> str:
    """`hydra.sweep.dir` as hooks see it."""
    return str(config.hydra.sweep.dir)


_APP = {
    "my_app.py": """
        import hydra

        @hydra.main(version_base=None, config_path=None)
        def main(cfg):
            print("GOT", cfg.x)
            return cfg.x

        def plain(cfg):
            return cfg.x

        if __name__ == "__main__":
            main()
        """
}
_WAYS = {
    "launcher run": ["run", "my_app.py", "hydra.run.dir='all/${now:%Y}'"],
    "launcher multirun": ["multirun", "my_app.py", "hydra.sweep.dir='all/${now:%Y}'"],
    "the plugin": ["my_app.py", "-m", "hydra/launcher=remote", "hydra.sweep.dir='all/${now:%Y}'"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", _WAYS)
def test_processes_that_begin_at_the_same_time_have_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """In each way to start a Hydra app, in folders whose name is the time. All complete, and each result is in a journal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    apps.write(tmp_path, _APP)
    start = apps.python if way == "the plugin" else apps.launcher

    def one(number: int) -> None:
        start(*_WAYS[way], f"+x={number}", cwd=tmp_path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(AT_ONCE)))
    found = []
    for journal in (tmp_path / "all").glob("*/.launcher*"):
        reader = JournalReader(journal)
        found += [event.overrides for event in reader.all_returned() if event.status == "COMPLETED"]
        reader.close()
    assert sorted(found) == [(f"+x={number}",) for number in range(AT_ONCE)]


@pytest.mark.parametrize(
    ("text", "naming"),
    [
        ("sweep", Naming.USER),
        ("multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}", Naming.MOMENT),
        ("${stamp}/x", Naming.MOMENT),
        ("${hydra:job.name}/${day}", Naming.TIME),
        ("${now:%%S}", Naming.TIME),
        ("${oc.env:HOME}/${missing}", Naming.USER),
    ],
)
def test_who_chose_the_folder_of_a_hydra_app(text: str, naming: Naming) -> None:
    """The time may be in the name itself, or come through another key."""
    config = OmegaConf.create(
        {
            "stamp": "a_${now:%T}",
            "day": "${now:%Y-%m-%d}",
            "hydra": {"job": {"name": "app"}, "run": {"dir": text}, "sweep": {"dir": text}},
        }
    )
    assert naming_of("RUN", config) is naming
    assert naming_of("MULTIRUN", config) is naming


@pytest.mark.parametrize("text", ["plain", "${x}", "a\\\\${x}", "\\\\", "$", "a${x}b${y:z}"])
def test_a_folder_in_a_config_is_plain_text(text: str) -> None:
    """It is read back unchanged, even if a part looks like an interpolation."""
    assert OmegaConf.create({"dir": literal(text)}).dir == text


ODD_NAMES = [
    "a#1",
    "b?x",
    "c%41",
    "d e",
    "new\nline",
    "${x}",
    "a\\${x}",
    "back\\slash",
    "end\\",
    "q'u",
    "b\\'q",
    '"',
    "[a]*{b}",
    "k=v,w",
    "é",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_any_name_in_an_override(name: str) -> None:
    """The value of `--folder` passes Hydra's grammar and OmegaConf unchanged."""
    (parsed,) = OverridesParser.create().parse_overrides([f"hydra.sweep.dir={_quoted(name)}"])
    assert OmegaConf.create({"dir": parsed.value()}).dir == name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a#1?%41", "${x}\\", "new\nline", "'q\"[*]", os.fsdecode(b"\xff")])
def test_a_run_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As working folder and as sweep folder: the job runs there, hooks see the folder unchanged, and the run is found by it."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    (one,) = launcher.multirun(where, [{"x": 1}], folder=name)
    assert one.return_value == (os.fsencode(tmp_path / name / name / "0"), os.fsencode(tmp_path / name))
    assert one.output_dir == str(tmp_path / name / name / "0")
    assert one.hydra_cfg.hydra.runtime.cwd == str(tmp_path / name)
    assert one.hydra_cfg.hydra.sweep.dir == str(tmp_path / name / name)
    assert index.parse(f"{tmp_path / name / name}#0").num == 0


def where(config: Any) -> tuple[bytes, bytes]:
    """A task: its folder, and the working folder."""
    return os.fsencode(launcher.current_job().output_dir), os.fsencode(os.getcwd())  # type: ignore[union-attr]
