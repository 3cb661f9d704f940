"""A run's folder from somebody else, or from a host in an output directory. No command runs what is in it.

Everything that could run code would leave a mark: every pickle, the modules that it names, the Python and the
ssh_config of its hosts, the callbacks and the logging classes of its YAML. If the user adopts the folder, the same
things do leave marks.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.cli.main import _main
from launcher.errors import RunError, UsageError
from launcher.results.output_folder import OutputFolder
from launcher.runs import index as run_index
from launcher.runs import ownership
from launcher.session.session import Session

JOBS = 3
APP = """
import launcher


def task(cfg):
    if cfg.x == 1:
        raise ValueError("one")
    print("job", cfg.x, "speaks")
    return cfg.x


class Watch(launcher.Callback):
    pass
"""
YAML_APP = """
def main(cfg):
    return dict(cfg)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run, and the state folder of its owner. Tests share it, and only copy it."""
    base = tmp_path_factory.mktemp("made")
    (base / "app").mkdir()
    (base / "app" / "received_app.py").write_text(APP)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(base / "app"))
        patch.chdir(base / "app")
        patch.setenv("XDG_STATE_HOME", str(base / "state"))
        import received_app

        launcher.multirun(
            received_app.task,
            [{"x": x} for x in range(JOBS)],
            folder=base / "sweep",
            callbacks=[received_app.Watch()],
            hosts=["local/2"],
        )
        yield base
    sys.modules.pop("received_app", None)


class Run:
    """The command `launcher` in this process, and the mark that foreign code would leave.

    Unexpected errors are raised, and fail the test.
    """

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.mark = folder / "mark"
        self._capture = capfd
        self.out = self.text = ""

    def __call__(self, *arguments: object) -> int:
        """Run a command, and return its exit code. `text` has its output, and `out` has what went to stdout."""
        self._capture.readouterr()
        code = _main([str(one) for one in arguments])
        sys.stdout.flush()
        self.out, err = self._capture.readouterr()
        self.text = self.out + err
        return code


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A user with their own index, in an empty folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield Run(tmp_path, capfd)
    for name in ("evil_module", "evil_main", "yaml_app"):
        sys.modules.pop(name, None)


def _evil(folder: Path, mark: Path) -> Path:
    """Make a folder of modules that leave the mark when they are imported."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("evil_module", "evil_main"):
        (folder / f"{name}.py").write_text(
            f"import os\nos.makedirs({str(mark)!r}, exist_ok=True)\n\n\nclass Evil:\n    on_job_start = main = print\n"
        )
    return folder


def _pickle(mark: Path) -> bytes:
    return f"cos\nsystem\n(S'mkdir -p {mark}'\ntR.".encode()


def _arm(folder: Path, mark: Path, **meta: str) -> None:
    """Put everything that may run code into a run's folder. It looks like a run that died with two open jobs."""
    evil = _evil(folder / "evil", mark)
    program = evil / "python"
    program.write_text(f"#!/bin/sh\nmkdir -p {mark}\n")
    program.chmod(0o755)
    (evil / "ssh_config").write_text(f"Host *\n  ProxyCommand mkdir -p {mark}\n")
    connection = sqlite3.connect(folder / ".launcher" / "journal.sqlite")
    setup = json.loads(connection.execute("select value from meta where key='setup'").fetchone()[0])
    (host,) = setup["hosts"]
    setup.update(
        main_module="evil_main",
        sys_path=[str(evil), *setup["sys_path"]],
        cwd=str(evil),
        hosts=[
            {**host, "python": str(program), "setup": [f"mkdir -p {mark}"]},
            {**host, "name": "far", "address": "far", "ssh_config": str(evil / "ssh_config")},
        ],
    )
    values = {"setup": json.dumps(setup), **meta}
    connection.executemany("insert or replace into meta values (?, ?)", values.items())
    connection.execute("update blobs set data=?", (_pickle(mark),))
    connection.execute("update jobs set payload=?", (_pickle(mark),))
    connection.execute("delete from events where kind in ('run_ended', 'hook')")
    connection.execute("delete from events where num=0 and kind in ('attempt_ended', 'job_returned')")
    (data,) = connection.execute("select data from events where num=2 and kind='job_assigned'").fetchone()
    connection.execute(
        "update events set data=? where num=2 and kind='job_assigned'",
        (json.dumps({**json.loads(data), "host": "far"}),),
    )
    connection.execute(
        "delete from events where num=2 and kind in ('attempt_started', 'attempt_ended', 'job_returned')"
    )
    for num in range(JOBS):
        connection.execute("update jobs set output_dir=? where num=?", (str(folder / str(num)), num))
    connection.commit()
    connection.close()
    for num in range(JOBS):
        for name in ("config", "job_return"):
            (folder / str(num) / ".hydra").mkdir(exist_ok=True)
            (folder / str(num) / ".hydra" / f"{name}.pickle").write_bytes(_pickle(mark))


@pytest.fixture
def received(made: Path, run: Run, tmp_path: Path) -> Path:
    """The received folder."""
    folder = tmp_path / "received"
    shutil.copytree(made / "sweep", folder)
    _arm(folder, run.mark)
    return folder


_LOOKING: list[tuple[str, ...]] = [
    ("runs",),
    ("runs", "--all", "--json"),
    ("show", "{folder}"),
    ("show", "{folder}", "--json"),
    ("show", "{folder}", "--all"),
    ("show", "{folder}#0"),
    ("show", "{folder}#1"),
    ("show", "{folder}/0"),
    ("logs", "{folder}#0"),
    ("logs", "{folder}#2", "--json"),
    ("logs", "{folder}#1"),
    ("clean", "--dry-run", "--host", "local"),
]
_TAKING: list[tuple[str, ...]] = [
    ("attach", "{folder}"),
    ("attach", "{folder}/.launcher"),
    ("attach", "{folder}", "--detach", "--json"),
    ("resume", "{folder}"),
    ("retry", "{folder}"),
    ("retry", "{folder}#1"),
    ("cancel", "{folder}"),
    ("cancel", "{folder}#0", "--kill"),
    ("reproduce", "{folder}#1"),
    ("reproduce", "{folder}#1", "--results", "never"),
]
_REPRODUCING: list[tuple[str, ...]] = [
    ("reproduce", "{folder}/1"),
    ("reproduce", "{folder}/1", "--results", "never"),
    ("reproduce", "{folder}/1/.hydra"),
    ("reproduce", "{folder}/0/../1"),
    ("reproduce", "{link}/1"),
    ("reproduce", "{folder}/1", "--pdb"),
    ("reproduce", "{folder}/1", "--exact", "--hooks", "--host", "local"),
]


def _say(arguments: tuple[str, ...], folder: Path) -> list[str]:
    link = folder.parent / "link"
    if not link.is_symlink():
        link.symlink_to(folder)
    return [one.format(folder=folder, link=link) for one in arguments]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", _LOOKING, ids=" ".join)
def test_a_received_folder_is_shown_as_data(run: Run, received: Path, arguments: tuple[str, ...]) -> None:
    """It is shown. Nothing in it runs, and no host that it names is asked."""
    assert run(*_say(arguments, received)) == 0, run.text
    assert not run.mark.exists(), run.text


@pytest.mark.parametrize("arguments", _TAKING, ids=" ".join)
def test_a_received_folder_is_not_resumed(run: Run, received: Path, arguments: tuple[str, ...]) -> None:
    """It is refused. The message says what adopting it means, and has the command for it."""
    before = sorted(path for path in received.rglob("*") if "journal.sqlite" not in path.name)
    assert run(*_say(arguments, received)) == 2, run.text
    assert f"launcher runs --adopt {received}" in run.text
    assert "any code with your rights" in run.text
    assert not run.mark.exists(), run.text
    assert sorted(path for path in received.rglob("*") if "journal.sqlite" not in path.name) == before


@pytest.mark.parametrize("arguments", _REPRODUCING, ids=" ".join)
def test_a_received_output_directory_is_not_run(run: Run, received: Path, arguments: tuple[str, ...]) -> None:
    """This holds for any way to write its path. The user has to name an application."""
    assert run(*_say(arguments, received)) == 2, run.text
    assert "--app" in run.text
    assert f"launcher runs --adopt {received}" in run.text
    assert not run.mark.exists(), run.text


def test_the_same_holds_inside_the_folder(run: Run, received: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder makes no difference, and nothing in the folder is imported."""
    _evil(received / "1", run.mark)
    for inside in (received, received / "1", received / "1" / ".hydra"):
        monkeypatch.chdir(inside)
        for arguments in (("reproduce", "."), ("attach", "."), ("show", ".")):
            run(*arguments)
            assert not run.mark.exists(), (inside, arguments, run.text)
        assert str(inside) not in sys.path


def test_an_adopted_folder_is_trusted(run: Run, received: Path) -> None:
    """Only the user can adopt the folder. After that, the same pickles are loaded."""
    assert run("runs", "--adopt", received) == 0, run.text
    assert "any code with your rights" in run.text
    assert not run.mark.exists()
    assert str(received) in run_index.find(received).folder.as_posix()
    run("attach", received)
    assert run.mark.exists(), run.text


def test_adopting_with_json_and_twice(run: Run, received: Path) -> None:
    """The answer is the run. A second adoption says that it is already adopted."""
    assert run("runs", "--adopt", received, "--json") == 0
    assert json.loads(run.out)["adopted"]["folder"] == str(received)
    assert run("runs", "--adopt", received) == 2
    assert "yours already" in run.text


def test_a_run_is_not_replaced_by_one_with_its_id(
    made: Path, run: Run, received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that claims to be a run of ours does not count as one, even if it has our own secret, and cannot be
    adopted.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(made / "state"))
    assert run("attach", received) == 2
    assert "copy of your run" in run.text
    assert run("runs", "--adopt", received) == 2
    assert "cannot be adopted" in run.text
    assert run("reproduce", received / "1") == 2
    assert not run.mark.exists()
    assert ownership.is_ours(made / "sweep")


def test_a_run_of_ours_that_was_changed_is_not_ours(made: Path, run: Run, tmp_path: Path) -> None:
    """Even with the right place and id, it is another run if it lacks the secret."""
    entry = _copied(made, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours")
    shutil.copytree(made / "sweep", tmp_path / "ours")
    _arm(tmp_path / "ours", run.mark, secret="guessed")
    for arguments in (
        ("attach", entry.run),
        ("attach", tmp_path / "ours"),
        ("retry", entry.run),
        ("cancel", entry.run),
    ):
        assert run(*arguments) == 2
        assert "--adopt" in run.text
    assert run("clean", "--dry-run") == 0
    assert "far" not in run.text
    assert not run.mark.exists()


def _copied(made: Path, folder: Path, **changes: Any) -> run_index.Entry:
    """Make a run of the user: a copy of the finished run, and an entry with its secret in the index."""
    shutil.copytree(made / "sweep", folder)
    (there,) = [_entry(path) for path in (made / "state" / "hydra-remote-launcher" / "index").glob("*.json")]
    entry = run_index.Entry(
        there["run"], folder, 1.0, "MULTIRUN", "task", False, changes.get("secret", there["secret"])
    )
    run_index.add(entry)
    if "secret" in changes:
        with sqlite3.connect(folder / ".launcher" / "journal.sqlite") as connection:
            connection.execute("delete from meta where key='secret'")
        connection.close()
    return entry


def _entry(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.slow
def test_a_run_that_was_moved_stays_ours(made: Path, run: Run, tmp_path: Path) -> None:
    """It is resumed and reproduced from its record, by its new path, a link or a path with `..`."""
    entry = _copied(made, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    (tmp_path / "link").symlink_to(tmp_path / "after")
    assert run("attach", tmp_path / "after") == 1, run.text
    assert "ValueError: one" in run.text
    for number, spelled in enumerate(("after/1", "link/1", "after/0/../1", "link/0/../1")):
        folder = tmp_path / f"again-{number}"
        assert run("reproduce", tmp_path / spelled, "--folder", folder, "--json") == 0, run.text
        assert json.loads(run.out)["is_same"] is True
    assert entry.secret not in run.text


def test_a_run_of_an_earlier_version_is_ours_where_the_index_has_it(made: Path, run: Run, tmp_path: Path) -> None:
    """It has no secret, so its place and its id count, however the path is written. In another place it is not ours."""
    _copied(made, tmp_path / "ours", secret="")
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert run("attach", tmp_path / "link") == 1, run.text
    assert "ValueError: one" in run.text
    (tmp_path / "ours").rename(tmp_path / "moved")
    assert run("attach", tmp_path / "moved") == 2
    assert "launcher runs --adopt" in run.text


@pytest.mark.slow
def test_a_resumed_run_of_an_earlier_version_may_be_moved(
    made: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets a secret when it is resumed."""
    monkeypatch.syspath_prepend(str(made / "app"))
    _copied(made, tmp_path / "ours", secret="")
    run("retry", f"{tmp_path / 'ours'}#1")
    assert "runs again" in run.text
    (tmp_path / "ours").rename(tmp_path / "moved")
    assert run("attach", tmp_path / "moved") == 1
    assert "--adopt" not in run.text


def test_a_session_in_python_refuses_it_too(received: Path, run: Run) -> None:
    """The message is the same."""
    with pytest.raises(RunError, match="runs --adopt"):
        Session.resume(received)
    assert not run.mark.exists()


def test_a_folder_that_others_can_write_is_not_ours(made: Path, run: Run, tmp_path: Path) -> None:
    """It cannot be adopted either, and neither can a link to another run."""
    _copied(made, tmp_path / "ours")
    (tmp_path / "ours" / ".launcher").chmod(0o777)
    assert run("attach", tmp_path / "ours") == 2
    assert "others can write" in run.text
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".launcher").symlink_to(made / "sweep" / ".launcher")
    assert run("attach", tmp_path / "other") == 2
    assert "is a link" in run.text
    assert run("runs", "--adopt", tmp_path / "other") == 2
    assert "is a link" in run.text


def test_the_secret_is_shown_nowhere(made: Path, run: Run, tmp_path: Path) -> None:
    """It is not in the output of a command, nor in the `repr` of an entry."""
    entry = _copied(made, tmp_path / "ours")
    for arguments in (
        ("runs", "--json"),
        ("show", entry.run, "--json"),
        ("show", f"{entry.run}#1"),
        ("logs", f"{entry.run}#0"),
    ):
        run(*arguments)
        assert entry.secret not in run.text
    assert entry.secret not in repr(entry)
    assert (tmp_path / "state" / "hydra-remote-launcher" / "index" / f"{entry.run}.json").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_new_run_in_a_folder_that_came_from_elsewhere(
    made: Path, run: Run, received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id cannot name another path, and does not make the index forget a run of ours."""
    monkeypatch.syspath_prepend(str(made / "app"))
    import received_app

    entry = _copied(made, tmp_path / "ours")
    launcher.run(received_app.task, {"x": 2}, folder=received)
    assert run_index.look_up(entry.run) is not None
    with sqlite3.connect(received / ".launcher" / "journal.sqlite") as connection:
        connection.execute("update meta set value='../../../escaped' where key='run'")
    connection.close()
    launcher.run(received_app.task, {"x": 2}, folder=received)
    assert not run.mark.exists()
    assert [path.name for path in tmp_path.rglob("*escaped*")] == []
    assert (received / ".launcher.damaged").is_dir()


# -- texts ----------------------------------------------------------------------------------------------------------

#: A colour, a title, a cursor that goes up, half of a character, a line that is no end, a text that runs the other way.
UGLY = "\x1b[31mred\x1b]0;title\x07\x1b[2Aup\ud800\x9b5m\u202e\r\x85\u2028"
_SHOWING: list[tuple[str, ...]] = [
    ("runs",),
    ("runs", "--json"),
    ("show", "{folder}"),
    ("show", "{folder}", "--all"),
    ("show", "{folder}#1"),
    ("show", "{folder}", "--json"),
    ("logs", "{folder}#0", "--json"),
    ("attach", "{folder}"),
    ("attach", "{folder}", "--verbose"),
    ("attach", "{folder}", "--json"),
    ("resume", "{folder}"),
    ("retry", "{folder}#0"),
    ("cancel", "{folder}"),
    ("reproduce", "{folder}/1"),
    ("reproduce", "{folder}#1"),
]


def _uglify(value: Any) -> Any:
    """Return the same data with escape sequences in every text that a host may have written."""
    if isinstance(value, dict):
        kept = ("kind", "run", "host", "hosts", "status", "folder", "mode", "side")
        return {key: one if key in kept else _uglify(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_uglify(one) for one in value]
    return value + UGLY if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "received"])
@pytest.mark.parametrize("arguments", _SHOWING, ids=" ".join)
def test_no_text_of_a_journal_reaches_a_terminal_as_it_is(
    made: Path, run: Run, tmp_path: Path, arguments: tuple[str, ...], is_ours: bool
) -> None:
    """This holds for a run of ours from an earlier version, and for a folder from somebody else."""
    folder = tmp_path / f"n{UGLY[:3]}\udcff" / "ours"
    folder.parent.mkdir()
    entry = _copied(made, folder)
    if not is_ours:
        run_index.remove(entry.run)
    connection = sqlite3.connect(folder / ".launcher" / "journal.sqlite")
    for seq, data in connection.execute("select seq, data from events").fetchall():
        event = json.loads(data)
        if event["kind"] == "attempt_ended" and event["num"] == 1:
            hook = {"kind": "hook", "at": 1.0, "hook": "on_job_end", "callback": "c", "side": "host", "ok": False}
            warning = {
                "kind": "warning",
                "at": 1.0,
                "source": "s",
                "message": "m",
                "traceback": "t",
                "num": 1,
                "host": "h",
            }
            extra = [{**hook, "num": 1, "host": "h"}, warning, {"kind": "note", "at": 1.0, "message": "m", "host": "h"}]
            connection.executemany(
                "insert into events (kind, num, data) values (?, 1, ?)",
                [(one["kind"], json.dumps(_uglify(one))) for one in extra],
            )
        connection.execute("update events set data=? where seq=?", (json.dumps(_uglify(event)), seq))
    for num, envelope in connection.execute("select num, envelope from results").fetchall():
        connection.execute("update results set envelope=? where num=?", (json.dumps(_uglify_hooks(envelope)), num))
    connection.execute("update meta set value=value || ? where key='task_name'", (UGLY.replace("\ud800", ""),))
    connection.commit()
    connection.close()
    run(*[one.format(folder=folder) for one in arguments])
    bad = set("\x1b\x07\ud800\x9b\u202e\r\x85\u2028\udcff") & set(run.text)
    assert not bad, (bad, run.text)
    assert run.text


def _uglify_hooks(envelope: str) -> Any:
    content = json.loads(envelope)
    return {**content, "hooks": _uglify(content.get("hooks", [])), "task_name": UGLY}


def test_a_received_journal_gives_clean_errors_in_python(made: Path, run: Run, tmp_path: Path) -> None:
    """A script gets no escape sequences either: not in the error, in what it raises, or in the hooks."""
    from launcher.results.decoding import Decoder
    from launcher.results.job_returns import load_returned, make_job_return
    from launcher.runs.journal import JournalReader, Returned

    _copied(made, tmp_path / "ours")
    with sqlite3.connect(tmp_path / "ours" / ".launcher" / "journal.sqlite") as connection:
        for seq, data in connection.execute("select seq, data from events where kind='job_returned'").fetchall():
            connection.execute("update events set data=? where seq=?", (json.dumps(_uglify(json.loads(data))), seq))
    connection.close()
    reader = JournalReader(tmp_path / "ours" / ".launcher")
    returned: Returned = load_returned(reader, 1)
    decoder = Decoder("never", lambda data: None, lambda data: None)
    job_return = make_job_return(returned, "r#1", {}, decoder, lambda num: (None, None))
    reader.close()
    with pytest.raises(launcher.RemoteJobError) as raised:
        _ = job_return.return_value
    for text in (str(job_return.error), str(raised.value), repr(job_return)):
        assert not set("\x1b\x07\ud800\x9b\u202e\r") & set(text), text


# -- what a host delivers into an output directory -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        ".launcher/journal.sqlite",
        "deep/.launcher/journal.sqlite",
        "a/b/.Launcher/stdout",
        "a/.LAUNCHER",
        "a/.lau\u200cncher/x",
        "a/\u202e.launcher/x",
        "a/.\uff4cauncher/x",
        ".launcher",
    ],
)
def test_no_host_can_write_our_folder_at_any_depth(tmp_path: Path, name: str) -> None:
    """This includes names that some disks consider the same, and both complete files and chunks."""
    folder = OutputFolder(tmp_path / "out")
    folder.write(name, 0o644, b"x")
    folder.write_chunk(name, 0o644, 2, 0, b"x")
    folder.write("a.launcher/.launcher.txt/well", 0o644, b"x")
    folder.close()
    assert [why for _, why in folder.refused] == ["the name .launcher is reserved for the launcher"] * 2
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["well"]


_CONFIG = """
x: 5
hydra:
  output_subdir: ../../escaped
  callbacks: {evil: {_target_: evil_module.Evil}}
"""
_HYDRA = """
hydra:
  callbacks: {evil: {_target_: evil_module.Evil}}
  output_subdir: ../../escaped
  run: {dir: ../../escaped}
  job_logging:
    version: 1
    handlers: {evil: {class: evil_module.Evil}, worse: {(): evil_module.Evil}}
    root: {handlers: [evil, worse]}
  launcher: {_target_: evil_module.Evil}
  sweeper: {_target_: evil_module.Evil}
  searchpath: [pkg://evil_module]
  overrides: {task: [x=5], hydra: [hydra/launcher=evil_module]}
  job: {name: NAME, num: 0, id: a, config_name: config, override_dirname: x=5, env_set: {PYTHONPATH: FOLDER, LD_PRELOAD: FOLDER/evil.so}}
  runtime: {version: 1.3.2, version_base: '1.3', cwd: FOLDER, output_dir: FOLDER, choices: {db: mysql}, config_sources: []}
  verbose: false
"""


@pytest.fixture(params=["evil_main", "../../../escaped"])
def delivered(request: pytest.FixtureRequest, tmp_path: Path, run: Run) -> Path:
    """An output directory from a hostile host: YAML, and the modules that it names."""
    folder = tmp_path / "sweep" / "0"
    _evil(folder, run.mark)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(_CONFIG)
    words = _HYDRA.replace("NAME", request.param).replace("FOLDER", str(folder))
    (folder / ".hydra" / "hydra.yaml").write_text(words)
    return folder


def test_yaml_of_a_host_names_no_code(run: Run, delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs without an application that the user names, whatever the working folder."""
    for inside in (Path.cwd(), delivered, delivered / ".hydra"):
        monkeypatch.chdir(inside)
        for path in (delivered, delivered / ".hydra", "."):
            for policy in ("never", "trusted"):
                assert run("reproduce", path, "--results", policy, "--hooks") == 2, run.text
        assert not run.mark.exists(), run.text
    assert not [one for one in sys.path if one.startswith(str(delivered))]


@pytest.mark.slow
@pytest.mark.parametrize("is_hydra", [False, True])
def test_yaml_of_a_host_is_data_for_the_application_that_the_user_names(
    run: Run, delivered: Path, tmp_path: Path, is_hydra: bool
) -> None:
    """The application gets the config.

    Callbacks, logging, variables, places and names of the `hydra` node are not used.
    """
    app = tmp_path / "mine" / "yaml_app.py"
    app.parent.mkdir()
    app.write_text(textwrap.dedent(YAML_APP))
    if not is_hydra:
        path = delivered / ".hydra" / "hydra.yaml"
        lines = path.read_text().splitlines()
        begin = next(index for index, line in enumerate(lines) if "job_logging" in line)
        path.write_text("\n".join([*lines[:begin], *lines[begin + 4 :]]))
    code = run("reproduce", delivered, "--app", app, "--folder", tmp_path / "again", "--json")
    assert code == 0, run.text
    assert not run.mark.exists(), run.text
    assert not list(tmp_path.rglob("escaped*"))
    assert (tmp_path / "again" / ".hydra" / "overrides.yaml").read_text() == "- x=5\n"
    assert (tmp_path / "again" / ".hydra" / "config.yaml").read_text() == "x: 5\n"
    assert (tmp_path / "again" / "yaml_app.log").exists()
    written = (tmp_path / "again" / ".hydra" / "hydra.yaml").read_text()
    assert "evil" not in written
    assert "LD_PRELOAD" not in written
    assert "db: mysql" in written
    assert str(delivered) not in written


def test_an_application_is_not_found_among_the_files_of_a_job(
    run: Run, delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is not looked up there, even if it is the working folder. The full path of a file is accepted."""
    monkeypatch.chdir(delivered)
    for app in ("evil_main", "evil_main.py", "evil_main:main", "./evil_main.py", "../0/evil_main.py:main"):
        assert run("reproduce", ".", "--app", app) == 2
        assert "an output directory" in run.text
    assert not run.mark.exists()
    run("reproduce", ".", "--app", delivered / "evil_main.py", "--folder", tmp_path / "again")
    assert run.mark.exists()


@pytest.mark.parametrize("name", ["config.yaml", "hydra.yaml", "overrides.yaml", "evil.yaml", "evil", "stdout.txt"])
def test_a_pickle_under_another_name_is_not_opened(run: Run, delivered: Path, name: str) -> None:
    """A pickle is opened only if its name says that it is one, and only if its own path is given."""
    path = delivered / ".hydra" / name
    path.write_bytes(_pickle(run.mark))
    assert run("reproduce", path) == 2
    assert run("reproduce", path, "--results", "trusted") == 2
    assert not run.mark.exists()
    path.rename(path.with_suffix(".pickle"))
    run("reproduce", path.with_suffix(".pickle"))
    assert run.mark.exists()


@pytest.mark.slow
def test_the_user_may_ask_for_its_hooks(run: Run, delivered: Path, tmp_path: Path) -> None:
    """The user thereby accepts the callbacks that it names. They are imported from the application's modules."""
    app = tmp_path / "mine" / "yaml_app.py"
    app.parent.mkdir()
    app.write_text(textwrap.dedent(YAML_APP))
    run("reproduce", delivered, "--app", app, "--folder", tmp_path / "again", "--hooks")
    assert "evil" in run.text
    assert not run.mark.exists()
    (app.parent / "evil_module.py").write_text((delivered / "evil_module.py").read_text())
    run("reproduce", delivered, "--app", app, "--folder", tmp_path / "again2", "--hooks")
    assert run.mark.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [1]\nb: [*a, *a]\n", "alias"),
        ("a: " + "[" * 200 + "]" * 200, "deeper"),
        ("a: !!python/object/apply:os.system ['true']\n", "constructor"),
        ("- 1\n", "not a mapping"),
        ("a: \x1b[31m\n", "not a config"),
        ("a: " + "9" * 6000 + "\n", "not a config"),
        ("a: " + "x" * (5 << 20) + "\n", "MiB"),
        ("{a: 1", "not a config"),
    ],
)
def test_yaml_that_hydra_would_not_write_is_refused(
    run: Run, delivered: Path, tmp_path: Path, text: str, why: str
) -> None:
    """The file is refused by name, whatever it would do to a parser."""
    (delivered / ".hydra" / "config.yaml").write_text(text)
    (tmp_path / "yaml_app.py").write_text(textwrap.dedent(YAML_APP))
    assert run("reproduce", delivered, "--app", tmp_path / "yaml_app.py") == 2
    assert "config.yaml is not a config" in run.text
    assert why in run.text
    assert "\x1b" not in run.text


def test_a_pipe_in_place_of_a_file_is_not_waited_for(run: Run, delivered: Path, received: Path, tmp_path: Path) -> None:
    """There is a pipe in the place of a config, a log or the lock."""
    (tmp_path / "yaml_app.py").write_text(textwrap.dedent(YAML_APP))
    (delivered / ".hydra" / "config.yaml").unlink()
    os.mkfifo(delivered / ".hydra" / "config.yaml")
    assert run("reproduce", delivered, "--app", tmp_path / "yaml_app.py") == 2
    for name, arguments in (("0/.launcher/stdout", ("logs", f"{received}#0")), (".launcher/lock", ("show", received))):
        (received / name).unlink()
        os.mkfifo(received / name)
        run(*arguments)


def test_a_long_log_is_read_in_pieces(run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log is shown."""
    from launcher.cli import printing

    entry = _copied(made, tmp_path / "ours")
    monkeypatch.setattr(printing, "_PIECE", 7)
    with sqlite3.connect(tmp_path / "ours" / ".launcher" / "journal.sqlite") as connection:
        connection.execute("update jobs set output_dir=? where num=0", (str(tmp_path / "ours" / "0"),))
    connection.close()
    (tmp_path / "ours" / "0" / ".launcher" / "stdout").write_text("one line, and another\n" * 9)
    assert run("logs", f"{entry.run}#0") == 0
    assert run.text == "one line, and another\n" * 9
    assert run("logs", f"{entry.run}#0", "--json") == 0
    assert json.loads(run.out)["stdout"] == "one line, and another\n" * 9


def test_adopting_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    """It is refused."""
    with pytest.raises((RunError, UsageError)):
        ownership.adopt(tmp_path)
