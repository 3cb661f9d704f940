"""A host that may fetches packages from its own internet; all else comes from here, as it does without the option."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import launcher
from launcher import events
from launcher.environments.wheels import WheelCache
from launcher.hosts.host_spec import HostSpec
from launcher.setup.from_journal import load_setup
from tests.controllers import wait_agents_ended
from tests.environment_tasks import packages
from tests.fetchable import VERSION, make_fetchable_python
from tests.file_server import FileServer, make_certificate, running_file_server
from tests.hosts.openssh import OpenSshHost, running_openssh_host
from tests.packages import guarded_index, make_wheel
from tests.remote_agent.agents import wait_until

TASK = "tests.environment_tasks:packages"
MEGABYTE = 1_000_000


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of wheels that this machine may ask."""
    with running_file_server() as running:
        yield running


def serve(server: FileServer, wheel: Path) -> str:
    """Give a wheel to a server; returns its address there."""
    server.files[f"/{wheel.name}"] = wheel.read_bytes()
    return f"{server.address}/{wheel.name}"


def new_wheel(folder: Path, name: str) -> Path:
    """A wheel with a content that no other test has."""
    return make_wheel(folder / "index", name, files={f"{name}.py": f"version = '1.0'  # {folder}\n"})


def part_of(workdir: Path, wheel: Path) -> Path:
    """The part of a wheel that a host has, when its first byte is there."""
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (part,) = wait_until(lambda: list((workdir / "cache/blobs").glob(f"part.*.{sha256}")), "a part")
    wait_until(lambda: part.stat().st_size == 1, "its first byte")
    return Path(part)


def lock_of(folder: Path, **wheels: tuple[Path, str]) -> str:
    """A lock of these wheels, each with its address."""
    lines = ['lock-version = "1.0"', 'created-by = "t"']
    for name, (wheel, url) in wheels.items():
        sha256, size = hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.stat().st_size
        lines += ["[[packages]]", f'name = "{name}"', 'version = "1.0"']
        lines += [f'wheels = [{{url = "{url}", size = {size}, hashes = {{sha256 = "{sha256}"}}}}]']
    (folder / "pylock.toml").write_text("\n".join(lines) + "\n")
    return str(folder / "pylock.toml")


def run(spec: HostSpec, folder: Path, lock: str, *modules: str, **options: Any) -> list[events.Event]:
    """One job that imports these modules; returns what happened."""
    seen: list[events.Event] = []
    returned = launcher.run(
        TASK,
        {"modules": list(modules)},
        host=spec,
        folder=folder,
        environment=lock,
        observers=[seen.append, *options.pop("observers", ())],
        **options,
    )
    assert returned.error is None, returned.error
    assert returned.return_value == dict.fromkeys(modules, "1.0")
    return seen


def notes(seen: list[events.Event]) -> list[str]:
    """What was said of packages that were not fetched."""
    return [one.message for one in seen if isinstance(one, events.Note) and "fetched" in one.message]


def ready(seen: list[events.Event]) -> events.EnvironmentReady:
    """The environment that the host has."""
    (one,) = [one for one in seen if isinstance(one, events.EnvironmentReady)]
    return one


def is_fetched_here(wheel: Path) -> bool:
    """Whether this machine has fetched it to send it."""
    return WheelCache({}).path(hashlib.sha256(wheel.read_bytes()).hexdigest()).exists()


@pytest.mark.slow
def test_a_host_fetches_what_it_may(server: FileServer, tmp_path: Path) -> None:
    """This machine then fetches none of it. What has no address that a host may have is sent, and the next run needs neither."""
    away, here = new_wheel(tmp_path, "away"), new_wheel(tmp_path, "here")
    lock = lock_of(tmp_path, away=(away, serve(server, away)), here=(here, here.as_uri()))
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    seen = run(spec, tmp_path / "out", lock, "away", "here", downloads=[server.address])
    assert ready(seen).fetched == away.stat().st_size
    assert len(server.asked) == 1
    assert not is_fetched_here(away)
    assert not notes(seen)
    seen = run(spec, tmp_path / "again", lock, "away", "here", downloads=[server.address])
    assert ready(seen).fetched == 0
    assert len(server.asked) == 1
    setup, _ = load_setup(tmp_path / "out")
    assert [one.downloads for one in setup.hosts] == [(server.address,)], "a resumed run has another leave"


@pytest.mark.slow
@pytest.mark.parametrize("downloads", [None, True, ["https://packages.example.org/"]])
def test_without_leave_all_is_sent(server: FileServer, tmp_path: Path, downloads: Any) -> None:
    """By default, and where the user's word does not cover the address: it is this machine that asks."""
    away = new_wheel(tmp_path, "away")
    lock = lock_of(tmp_path, away=(away, serve(server, away)))
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    seen = run(spec, tmp_path / "out", lock, "away", **({} if downloads is None else {"downloads": downloads}))
    assert ready(seen).fetched == 0
    assert is_fetched_here(away)


@pytest.mark.slow
def test_what_cannot_be_fetched_is_sent(server: FileServer, tmp_path: Path) -> None:
    """The run says which host, from where, and why."""
    away = new_wheel(tmp_path, "away")
    address = serve(server, away)
    lock = lock_of(tmp_path, away=(away, address))
    good = server.files[f"/{away.name}"]
    answers = [good[:-1] + b"x", good]
    real = server.answer

    def answer(request: Any) -> None:
        server.files[f"/{away.name}"] = answers.pop(0)
        real(request)

    server.answer = answer  # type: ignore[method-assign]
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"), downloads=(server.address,))
    seen = run(spec, tmp_path / "out", lock, "away")
    (note,) = notes(seen)
    assert note.startswith(f"{away.name} was not fetched from 127.0.0.1:")
    assert note.endswith("does not match the lock, and was thrown away; your machine sends what is missing")
    assert is_fetched_here(away)


@pytest.mark.slow
@pytest.mark.parametrize("downloads", [True, "the index"])
def test_no_credential_and_no_private_address_reaches_a_host(downloads: Any, tmp_path: Path) -> None:
    """Also with downloads on, and if the user has named the index: nothing that the host has holds its address or the password."""
    workdir = tmp_path / "seen"
    secret = f"s3cret{tmp_path.name}".replace("_", "")
    hidden = new_wheel(tmp_path, "hidden")
    with guarded_index(hidden, f"me:{secret}") as (address, asked):
        lock = lock_of(tmp_path, hidden=(hidden, address.replace("//", f"//me:{secret}@")))
        allowed = downloads if downloads is True else [address.rpartition("/")[0]]
        seen = run(
            HostSpec("local", "local", workdir=str(workdir)), tmp_path / "out", lock, "hidden", downloads=allowed
        )
    assert ready(seen).fetched == 0
    assert asked
    wait_agents_ended(workdir / "state")
    host = address.split("/")[2].encode()
    files = [path for path in workdir.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    assert [path for path in files if secret.encode() in (data := path.read_bytes()) or host in data] == []


@pytest.mark.slow
def test_an_agent_that_dies_meanwhile(server: FileServer, tmp_path: Path) -> None:
    """The next one goes on where it stopped."""
    away = new_wheel(tmp_path, "away")
    lock = lock_of(tmp_path, away=(away, serve(server, away)))
    workdir = tmp_path / "workdir"
    spec = HostSpec("local", "local", workdir=str(workdir), downloads=(server.address,))
    killed: list[int] = []

    def kill(event: events.Event) -> None:
        if killed or not isinstance(event, events.EnvironmentChanged) or event.state != "sending":
            return
        part_of(workdir, away)
        (taken,) = (workdir / "cache/envs").glob(".lock.*")
        killed.append(json.loads(taken.read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)
        server.hold.set()

    server.hold.clear()
    run(spec, tmp_path / "out", lock, "away", observers=[kill])
    assert killed
    assert [headers.get("range") for _, headers in server.asked] == [None, "bytes=1-"]


@pytest.mark.slow
def test_a_run_that_is_stopped_meanwhile(server: FileServer, tmp_path: Path) -> None:
    """The agent ends, and a later run goes on where it stopped."""
    away = new_wheel(tmp_path, "away")
    lock = lock_of(tmp_path, away=(away, serve(server, away)))
    workdir = tmp_path / "workdir"
    spec = HostSpec("local", "local", workdir=str(workdir), downloads=(server.address,))
    server.hold.clear()
    with launcher.Session.open(hosts=[spec], environment=lock, folder=tmp_path / "out") as session:
        job = session.submit(packages, OmegaConf.create({"modules": ["away"]}))
        part_of(workdir, away)
        job.cancel()
    wait_agents_ended(workdir / "state")
    server.hold.set()
    run(spec, tmp_path / "again", lock, "away")
    assert [headers.get("range") for _, headers in server.asked] == [None, "bytes=1-"]


@pytest.mark.slow
def test_uv_fetches_a_python_that_fits(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the host has none. The next run finds it, with downloads or without; without both, the error names the option."""
    wheel = new_wheel(tmp_path, "here")
    lock = Path(lock_of(tmp_path, here=(wheel, wheel.as_uri())))
    lock.write_text(f'requires-python = "=={VERSION}"\n{lock.read_text()}')
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", str(make_fetchable_python(tmp_path, server=server.address)))
    server.files["/python.tar.gz"] = (tmp_path / "python.tar.gz").read_bytes()
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    seen: list[events.Event] = []
    refused = launcher.run(
        TASK, {"modules": ["here"]}, host=spec, folder=tmp_path / "no", environment=str(lock), observers=[seen.append]
    )
    assert refused.error is not None
    (unusable,) = [one for one in seen if isinstance(one, events.HostUnusable)]
    assert "or allow `downloads` for this host" in unusable.next_step
    first = run(spec, tmp_path / "first", str(lock), "here", downloads=[server.address])
    assert [path for path, _ in server.asked] == ["/python.tar.gz"]
    again = run(spec, tmp_path / "again", str(lock), "here", downloads=[server.address])
    without = run(spec, tmp_path / "without", str(lock), "here")
    assert {ready(one).key for one in (first, again, without)} == {ready(first).key}
    assert [ready(one).is_new for one in (first, again, without)] == [True, False, False]
    assert len(server.asked) == 1


@pytest.mark.openssh
@pytest.mark.slow
def test_300_megabytes_over_tls_with_a_connection_that_breaks(tmp_path: Path) -> None:
    """A real host fetches them with its own certificates. What is there is not fetched again, and nothing of it is sent."""
    authority, certificate = make_certificate(tmp_path)
    wheel = make_wheel(
        tmp_path / "index", "large", files={"large.py": "version = '1.0'\n", "large.bin": os.urandom(300 * MEGABYTE)}
    )
    settings = ["SetEnv SSL_CERT_FILE=/home/runner/ca.pem"]
    with (
        running_file_server(certificate) as server,
        running_openssh_host(tmp_path / "host", settings=settings) as host,
    ):
        trusted(host, authority)
        lock = lock_of(tmp_path, large=(wheel, serve(server, wheel)))
        server.cuts = [100 * MEGABYTE, 100 * MEGABYTE]
        seen = run(host.spec(), tmp_path / "out", lock, "large", downloads=[server.address])
    assert not notes(seen)
    assert ready(seen).fetched == wheel.stat().st_size
    assert [headers.get("range") for _, headers in server.asked] == [
        None,
        f"bytes={100 * MEGABYTE}-",
        f"bytes={200 * MEGABYTE}-",
    ]
    assert not is_fetched_here(wheel)


def trusted(host: OpenSshHost, authority: Path) -> None:
    """Put a certificate into the host's home, where its settings say that it is."""
    (host.home / "ca.pem").write_bytes(authority.read_bytes())
    (host.home / "ca.pem").chmod(0o644)
