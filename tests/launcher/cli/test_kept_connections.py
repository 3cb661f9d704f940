"""`launcher connect`, `connections` and `disconnect`, and a run over a kept connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import events
from launcher.cli import main
from launcher.demo.server import DemoServer
from launcher.runs.journal import JournalReader
from launcher.transports.openssh import kept
from tests.requirements import need_programs


@pytest.fixture
def hosts(tmp_path: Path, runtime_folder: Path) -> Iterator[tuple[DemoServer, str]]:
    """A server, and a hosts file that names it. What is kept at the end is closed."""
    need_programs("ssh")
    with DemoServer() as server:
        file = tmp_path / "hosts.yaml"
        file.write_text(f"gpu1: {{address: demo, ssh_config: {server.ssh_config}}}\n")
        yield server, str(file)
        for one in kept.connections():
            kept.close(one.socket)


def test_a_connection_from_its_opening_to_its_end(
    hosts: tuple[DemoServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named as the user named the host."""
    server, file = hosts
    assert main._main(["connect", "gpu1", "--hosts", file, "--for", "30m"]) == 0
    told = capsys.readouterr().out
    assert f"gpu1: connected as demo@127.0.0.1:{server.port}" in told
    assert "launcher disconnect gpu1" in told
    assert main._main(["connections", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["connections"]
    assert (one["host"], one["kept_for"], one["is_up"]) == ("gpu1", 1800.0, True)
    assert main._main(["connections"]) == 0
    assert "gpu1" in capsys.readouterr().out
    assert main._main(["disconnect", "gpu1"]) == 0
    assert "gpu1: disconnected" in capsys.readouterr().out
    assert main._main(["connections"]) == 0
    assert "no kept connections" in capsys.readouterr().out
    assert server.logins == 1


def test_what_is_no_host_is_refused(hosts: tuple[DemoServer, str], capsys: pytest.CaptureFixture[str]) -> None:
    """With what to say instead."""
    _, file = hosts
    for words in (["connect"], ["connect", "local"], ["disconnect"], ["disconnect", "gpu1", "--all"]):
        assert main._main(words) == 2
    assert main._main(["connect", "--hosts", file, "--for", "soon"]) == 2
    assert "--for" in capsys.readouterr().err
    assert main._main(["disconnect", "gpu1"]) == 0
    assert "there is no kept connection" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_uses_it_and_the_journal_says_so(
    hosts: tuple[DemoServer, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs, and one login for both, which was that of `connect`."""
    server, file = hosts
    (tmp_path / "kept_run.py").write_text("def f(cfg):\n    return 7\n")
    monkeypatch.chdir(tmp_path)
    assert main._main(["connect", "gpu1", "--hosts", file]) == 0
    for number in range(2):
        folder = tmp_path / f"out{number}"
        assert main._main(["run", "kept_run.py:f", "--hosts", file, "--folder", str(folder)]) == 0
        told = capsys.readouterr()
        assert "reached by openssh: a kept connection to the host is open" in told.out + told.err
        reader = JournalReader(folder / ".launcher")
        ways = [event for _, event in reader.events() if isinstance(event, events.WayChosen)]
        reader.close()
        assert [(way.host, way.way) for way in ways] == [("gpu1", "openssh")]
    assert server.logins == 1
    assert (
        main._main(["run", "kept_run.py:f", "--hosts", file, "--ssh", "fabric", "--folder", str(tmp_path / "out")]) == 0
    )
    assert server.logins == 2


@pytest.mark.slow
def test_doctor_says_which_way_is_taken_and_why(
    hosts: tuple[DemoServer, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a step of its own, after the configuration."""
    _, file = hosts
    assert main._main(["doctor", "--hosts", file]) == 0
    assert "way: fabric: it is the usual way" in capsys.readouterr().out
    assert main._main(["connect", "gpu1", "--hosts", file]) == 0
    capsys.readouterr()
    assert main._main(["doctor", "--hosts", file]) == 0
    assert "way: openssh: a kept connection to the host is open" in capsys.readouterr().out
    assert main._main(["doctor", "--hosts", file, "--ssh", "openssh"]) == 0
