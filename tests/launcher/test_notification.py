"""The message at the end of a run: over mail and a webhook on loopback, and what a bad service costs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

import launcher
from launcher import events
from launcher.demo.server import DemoServer
from launcher.errors import CallbackError
from launcher.hosts.inventory import load_hosts
from launcher.notification import message_of
from tests.journals import MadeJob, table_of
from tests.notification_tasks import train

#: In two parts, because hosts get this file.
SECRET = "s3cret" + "w0rd"


class Webhook(ThreadingHTTPServer):
    """A service on loopback. Without an answer it hangs until `release` is set."""

    daemon_threads = True

    def __init__(self, answer: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.release = threading.Event()
        self.messages: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"json://bot:{SECRET}@127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if not self.server.answer:
            self.server.release.wait()
            return
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def webhook(answer: int = 200) -> Iterator[Webhook]:
    """A webhook for a test."""
    with Webhook(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("APPRISE_URLS", raising=False)


def sweep(folder: Path, callback: Any, hosts: Any = "local/2", **how: Any) -> list[events.Event]:
    """A sweep with a failure. Returns what was warned of."""
    happened: list[events.Event] = []
    configs = how.pop("configs", [{"lr": 0.5}, {"lr": 2.0}, {"lr": 0.0}])
    launcher.multirun(
        train, configs, hosts=hosts, folder=folder, callbacks=[callback], observers=[happened.append], **how
    )
    return [event for event in happened if isinstance(event, events.Warned)]


def test_a_webhook_gets_counts_best_value_first_failure_and_command(tmp_path: Path) -> None:
    """Of a whole run. Its address is in no file of the run."""
    with webhook() as server:
        assert sweep(tmp_path / "run", launcher.NotifyCallback([server.url], sort="loss")) == []
    (message,) = server.messages
    assert message["title"] == "train: 2 of 3 jobs completed, 1 failed"
    best, failed, command = message["message"].splitlines()
    assert best.startswith("best by loss: 0.5 in job 0")
    assert failed.startswith("job 2 on local: ZeroDivisionError: ")
    assert command.startswith("launcher show 20")
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_mail_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a login, to a server on loopback. The variable has two addresses."""
    mails: list[Any] = []

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mails.append(envelope)
            return "250 OK"

    def login(server: Any, session: Any, envelope: Any, mechanism: Any, data: Any) -> AuthResult:
        return AuthResult(success=data.password == SECRET.encode())

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        Handler(), hostname="127.0.0.1", port=port, authenticator=login, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        with webhook() as server:
            mail = f"mailto://bot:{SECRET}@127.0.0.1:{port}?from=bot@lab.org&to=me@lab.org&mode=insecure&smtp=127.0.0.1"
            monkeypatch.setenv("APPRISE_URLS", f"{mail}, {server.url}")
            assert sweep(tmp_path / "run", launcher.NotifyCallback()) == []
            assert len(server.messages) == 1
    finally:
        controller.stop()
    (one,) = mails
    assert one.rcpt_tos == ["me@lab.org"]
    assert b"launcher show 20" in one.content


@pytest.mark.parametrize(("answer", "why"), [(500, "not sent to all services"), (0, "not sent within 0.2 s")])
def test_a_service_that_fails_or_hangs_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: int, why: str
) -> None:
    """The results are all there, and no text has the password."""
    with webhook(answer) as server, caplog.at_level(logging.DEBUG):
        (warned,) = sweep(
            tmp_path / "run",
            launcher.NotifyCallback([server.url], timeout=0.2 if not answer else 20),
            configs=[{"lr": 1}],
        )
    assert isinstance(warned, events.Warned)
    assert warned.source == "callback NotifyCallback.on_multirun_end"
    assert why in warned.message
    assert SECRET not in warned.message + warned.traceback + caplog.text
    assert not [record for record in caplog.records if record.name == "apprise" and record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("lr", "messages"), [(1.0, 0), (0.0, 1)])
def test_only_failures_if_that_is_asked(tmp_path: Path, lr: float, messages: int) -> None:
    """A run whose jobs all completed sends nothing."""
    with webhook() as server:
        assert (
            sweep(tmp_path / "run", launcher.NotifyCallback([server.url], events="failed"), configs=[{"lr": lr}]) == []
        )
        assert len(server.messages) == messages


@pytest.mark.slow
def test_a_run_of_one_job_tells_too(tmp_path: Path) -> None:
    """In RUN mode."""
    with webhook() as server:
        launcher.run(train, {"lr": 2.0}, folder=tmp_path / "run", callbacks=[launcher.NotifyCallback(server.url)])
    assert server.messages[0]["title"] == "train: 1 of 1 jobs completed"


@pytest.mark.slow
def test_hosts_get_neither_it_nor_its_urls(tmp_path: Path) -> None:
    """Nothing on the host has the address, and the host needs no apprise."""
    with DemoServer() as demo, webhook() as server:
        hosts = list(load_hosts({"demo": {"address": "demo", "ssh_config": str(demo.ssh_config), "slots": 2}}, "test"))
        assert sweep(tmp_path / "run", launcher.NotifyCallback([server.url]), hosts) == []
        assert len(server.messages) == 1
        read = 0
        for folder, _, names in os.walk(demo.home):
            for path in (Path(folder, name) for name in names):
                # The host removes what the run has left there.
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file():
                        assert SECRET.encode() not in path.read_bytes()
                        read += 1
        assert read


def test_what_is_stored_has_names_of_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that resumes the run reads the variable, and says so if an address was given in another way."""
    monkeypatch.setenv("MY_URLS", "json://127.0.0.1:9")
    data = pickle.dumps(launcher.NotifyCallback(["$MY_URLS", f"json://u:{SECRET}@h"]))
    assert SECRET.encode() not in data
    again = pickle.loads(data)
    assert again._service()[1] == ["json://127.0.0.1:9"]
    alone = pickle.loads(pickle.dumps(launcher.NotifyCallback(f"json://u:{SECRET}@h")))
    with pytest.raises(CallbackError, match="which are not stored with a run"):
        alone._service()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"urls": f"nonsense://{SECRET}"}, "url 1 of 1 is none that apprise knows"),
        ({"urls": "$NOT_SET_HERE"}, "the variable NOT_SET_HERE is not set here"),
        ({"urls": []}, "no urls"),
        ({"events": "begun"}, "the event 'begun' is none of ended, failed"),
    ],
)
def test_what_is_wrong_is_refused_before_the_run(
    given: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By name, and without the address."""
    with pytest.raises(CallbackError) as raised:
        launcher.NotifyCallback(**{"urls": "json://h", **given})
    assert why in str(raised.value)
    assert SECRET not in str(raised.value) + caplog.text


def test_addresses_in_a_config_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts get the config. A name of a variable may stand there."""
    node = {"_target_": "launcher.NotifyCallback", "urls": [f"json://u:{SECRET}@h"]}
    with pytest.raises(CallbackError, match="names of variables alone") as raised:
        launcher.run(train, {"lr": 1, "hydra": {"callbacks": {"tell": node}}}, folder=tmp_path / "no")
    assert SECRET not in str(raised.value)
    with webhook() as server:
        monkeypatch.setenv("MY_URLS", server.url)
        node["urls"] = "$MY_URLS"
        launcher.run(train, {"lr": 1, "hydra": {"callbacks": {"tell": node}}}, folder=tmp_path / "run")
    assert len(server.messages) == 1


def test_the_message_of_a_run_that_was_cut_short(tmp_path: Path) -> None:
    """It says what did not end, and a column that is not there."""
    table = table_of(tmp_path, [MadeJob(value={"loss": 1}), MadeJob(state="waiting")])
    title, body = message_of(table, "los")
    assert title == "train: 1 of 2 jobs completed, 1 did not end"
    assert "los" in body
    assert body.endswith("launcher show 20231114-221320-made")
