"""A secret is only where the job runs. It is in nothing that a run leaves, prints or shows on either side.

Rule: each test makes new values, and searches their bytes in every file, every output and the process table, while the
jobs run and afterwards. Digests prove that the jobs had them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.controllers import ROOT, until, wait_agents_ended
from tests.hosts.openssh import OpenSshHost

APP = Path(__file__).parents[1] / "apps" / "hushed" / "hushed_app.py"
COMMAND = "import sys; sys.argv[0] = 'launcher'; from launcher.cli.main import main; main()"
WAYS = ["python", "command line", "hydra"]


@dataclass
class Place:
    """Controller and host of a run: their folders, and the secrets."""

    folder: Path
    host: OpenSshHost | None
    mark: str = field(default_factory=lambda: f"hush{uuid.uuid4().hex}")

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        self.given = self.folder / "given"
        self.job_home = self.host.home if self.host else self.folder / "home"
        self.job_state = self.host.home / ".local" / "state" if self.host else self.folder / "state"
        for each in (self.project, self.given, self.folder / "home", self.folder / "tmp"):
            each.mkdir(exist_ok=True)
        (self.project / APP.name).write_bytes(APP.read_bytes())
        # Every way to write one down gets an own chance to fail: quotes, a newline, a backslash, more than ASCII.
        self.values = {
            name: f" {self.mark}-{name} 'q' \"d\"\nsecond-{self.mark} $(x) `y` \\ ü"
            for name in ("HUSHED_RUN", "HUSHED_HOST", "HUSHED_FORWARDED")
        }
        self.hosts_file = self.given / "hosts.yaml"
        host: dict[str, object] = {"address": "local"}
        if self.host:
            host = {"address": self.host.name, "ssh_config": str(self.host.ssh_config)}
        host |= {"slots": 4, "env": {"HUSHED_HOST": self.values["HUSHED_HOST"]}}
        self.hosts_file.write_text(yaml.safe_dump({"there": host}))
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HUSHED_FORWARDED": self.values["HUSHED_FORWARDED"],
        }

    def command(self, way: str) -> list[str]:
        """Return the command of a run of four jobs, for one interface."""
        python = [sys.executable]
        if way == "python":
            options = {"hosts_file": str(self.hosts_file), "forward_env": ["HUSHED_FORWARDED"]}
            given = self.given / "given.json"
            given.write_text(json.dumps([{"HUSHED_RUN": self.values["HUSHED_RUN"]}, options]))
            code = f"import json, hushed_app; hushed_app.from_python('~', *json.load(open({str(given)!r})))"
            return [*python, "-c", code]
        overrides = ["+x=0,1,2,3", "+place='~'", "+token='${oc.env:HUSHED_RUN}'", "hydra.sweep.dir=sweep"]
        module = "remote_agent.callbacks" if way == "command line" else "hydra.experimental.callbacks"
        overrides += [
            f"+hydra.callbacks.pickle={{_target_: {module}.PickleJobInfoCallback}}",
            f"+hydra.callbacks.log={{_target_: {module}.LogJobReturnCallback}}",
            "hydra.job_logging.root.level=DEBUG",
        ]
        run = self.values["HUSHED_RUN"]
        if way == "command line":
            options_ = ["--hosts", str(self.hosts_file), "--env", f"HUSHED_RUN={run}", "--env", "HUSHED_FORWARDED"]
            return [*python, "-c", COMMAND, "multirun", "-v", "--json", "--live", *options_, APP.name, *overrides]
        quoted = "'" + run.replace("'", "\\'") + "'"
        overrides += [
            "hydra/launcher=remote",
            f"hydra.launcher.hosts_file={self.hosts_file}",
            f"+hydra.launcher.env.HUSHED_RUN={quoted}",
            "hydra.launcher.forward_env=[HUSHED_FORWARDED]",
            "hydra.verbose=true",
        ]
        return [*python, APP.name, "-m", *overrides]

    def launcher(self, *arguments: str) -> str:
        """Return what a later command prints about the run on both streams, without the secrets in its environment."""
        environ = {name: value for name, value in self.environ.items() if name != "HUSHED_FORWARDED"}
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=self.project,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return (done.stdout + done.stderr).decode()

    def files_with_it(self) -> list[str]:
        """Return every file on either side with a part of a secret in it."""
        tops = [self.folder / name for name in ("project", "home", "tmp", "state", "cache")]
        if self.host:
            tops += [self.host.home, *(self.host.path(each) for each in ("/tmp", "/run", "/dev/shm", "/var/tmp"))]
        found, looked = [], 0
        for top in tops:
            for folder, _, names in os.walk(top):
                for path in (Path(folder, name) for name in names):
                    try:
                        data = path.read_bytes() if path.is_file() and not path.is_symlink() else None
                    except FileNotFoundError:
                        continue  # the run goes on while it is looked at
                    if data is not None:
                        looked += 1
                        found += [str(path)] if self.mark.encode() in data + os.fsencode(path) else []
        assert looked > 10, "there was something to look at"
        return found

    def processes_with_it(self, what: str) -> dict[int, str]:
        """Return the command lines, by pid, of processes on either side with a part of a secret in `cmdline` or
        `environ`.
        """
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                data, command = (entry / what).read_bytes(), (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if what == "environ":
                # The shell that forwards a variable has it, and so has all that is started from there.
                data = b"\0".join(one for one in data.split(b"\0") if not one.startswith(b"HUSHED_FORWARDED="))
            if self.mark.encode() in data:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found


@pytest.fixture(params=["local", pytest.param("openssh", marks=pytest.mark.openssh)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """This machine without SSH, or a separate host behind SSH."""
    host = request.getfixturevalue("openssh_host") if request.param == "openssh" else None
    made = Place(tmp_path, host)
    yield made
    for name in ("gate", *(f"began.{x}" for x in range(4))):
        (made.job_home / name).unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_trace_of_a_secret_is_left_anywhere(place: Place, way: str) -> None:
    """Secrets are given per run and per host, and forwarded.

    Jobs complete, raise, exit and are killed. Every interface is used.
    """
    with (place.folder / "said").open("wb") as said:
        command = place.command(way)
        process = subprocess.Popen(
            command, cwd=place.project, env=place.environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            began = [place.job_home / f"began.{x}" for x in range(4)]
            until(
                "all four jobs to run",
                lambda: all(path.exists() for path in began) or process.poll() is not None,
            )
            assert process.poll() is None, (place.folder / "said").read_text()
            # What a user types is in the user's own command line, and in no other.
            typed = set() if way == "python" else {process.pid}
            assert set(place.processes_with_it("cmdline")) == typed
            holders = place.processes_with_it("environ")
            assert holders, "the jobs have it"
            assert [one for one in holders.values() if "zygote" not in one] == []
            assert place.files_with_it() == []
            (place.job_home / "gate").touch()
            process.wait(60)
        finally:
            process.kill()
            process.wait()
    text = (place.folder / "said").read_text()
    assert place.mark not in text
    wait_agents_ended(place.job_state / "hydra-remote-launcher")
    assert "job 1 does not like it" in text or way == "python", "it told of failures"
    assert place.files_with_it() == []
    told = json.loads(place.launcher("show", "sweep", "--json", "--all"))
    assert [job["state"] for job in told["jobs"]] == ["COMPLETED", "FAILED", "FAILED", "FAILED"]
    for arguments in (
        ["show", "sweep"],
        ["show", "sweep", "--json", "--all"],
        ["runs", "--json"],
        *(["logs", f"sweep#{num}"] for num in range(4)),
        ["logs", "sweep#1", "--json"],
    ):
        assert place.mark not in place.launcher(*arguments), arguments
    check_digests(place)


def check_digests(place: Place) -> None:
    """Check that the job had exactly the secrets."""
    values = [*place.values.values(), place.values["HUSHED_RUN"]]
    digests = [hashlib.sha256(value.encode()).hexdigest() for value in values]
    code = "import pickle, sys; print(*pickle.load(open(sys.argv[1], 'rb')).return_value)"
    pickles = list((place.project / "sweep" / "0").rglob("job_return.pickle"))
    assert len(pickles) == 1
    done = subprocess.run(
        [sys.executable, "-c", code, str(pickles[0])], capture_output=True, text=True, cwd=place.project, check=True
    )
    assert done.stdout.split() == digests
