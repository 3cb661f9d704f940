"""The agent with real processes: what it promises its controller, whatever happens to either."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from remote_agent.shared import wire
from tests.remote_agent.agents import APP, AgentHost, Client, wait_gone, wait_until

_RUNS = itertools.count()


@pytest.fixture
def new_agent(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., AgentHost]]:
    """A maker of hosts, each of a run of its own."""
    made: list[AgentHost] = []

    def make(**more) -> AgentHost:
        made.append(AgentHost(tmp_path / f"a{len(made)}", bundle, run=f"t{os.getpid()}-{next(_RUNS)}", **more))
        return made[-1]

    yield make
    for host in made:
        host.stop()


@pytest.fixture
def host(new_agent) -> AgentHost:
    """A host with one callback."""
    return new_agent(callbacks={"c": ()})


class TestJobs:
    """A job from its frame to its result."""

    @pytest.mark.slow
    def test_runs_and_comes_back(self, host):
        """Started, final with the value, files_end, in this order; the hooks around it; forgotten when acknowledged."""
        client = host.connect()
        attempt = host.job(client, 0, value={"a": 1}, do="value")
        assert client.value(attempt) == {"a": 1}
        names = [f.header["t"] for f in client.frames if f.header.get("attempt") == attempt]
        assert names.index("started") < names.index("final") < names.index("files_end")
        assert host.lines("hooks") == ["start c 0", "end c 0 0 "]

        client.ack(attempt)
        stream = host.spool / "streams" / f"{attempt}.stdout"
        wait_until(lambda: not stream.exists(), "the stream file to go")
        again = host.connect()
        assert host.known(again) == {}

    @pytest.mark.slow
    def test_sent_twice_runs_once(self, host):
        """A job that is known changes nothing: while it waits, runs, or has its result."""
        gate = host.gate("g")
        client = host.connect()
        for _ in range(3):
            attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        host.job(client, 0, do="gate", gate=gate)
        host.open_gate(gate)
        client.result(attempt)
        host.job(client, 0, do="gate", gate=gate)
        other = host.job(client, 1)
        client.result(other)
        assert [job.num for job in host.started(2)] == [0, 1]
        assert len(client.all("final", attempt=attempt)) == 1

    @pytest.mark.parametrize(
        ("config", "kind", "fields"),
        [
            ({"do": "signal", "signal": 9}, "killed", {"signal": 9}),
            ({"do": "signal", "signal": 11}, "killed", {"signal": 11}),
            ({"do": "exit", "code": 3}, "exited", {"exit_code": 3}),
            ({"do": "exit", "code": 0}, "exited", {"exit_code": 0}),
            ({"do": "exit", "code": 256}, "exited", {"exit_code": 0}),
            ({"do": "raise"}, "exception", {"type": "ValueError"}),
        ],
    )
    def test_that_dies_is_failed_and_its_hooks_are_closed(self, host, config, kind, fields):
        """What ended the process names the error; `on_job_end` fires with the state of before, be it in an epilogue."""
        client = host.connect()
        error = client.error(host.job(client, 0, **config))
        assert error["kind"] == kind
        assert {name: error[name] for name in fields} == fields
        assert host.lines("hooks") == ["start c 0", f"end c 0 0 {kind}"]

    @pytest.mark.slow
    def test_that_dies_in_an_end_hook_keeps_its_outcome(self, new_agent):
        """A hook that kills the process costs neither the value nor the other callbacks' ends, and is not repeated."""
        host = new_agent(callbacks={"a": (), "b": (("trap", "kill"),)})
        client = host.connect()
        assert client.value(host.job(client, 0, value=7)) == 7
        assert host.lines("hooks") == ["start a 0", "start b 0", "end b 0 0 ", "end a 0 0 "]

    @pytest.mark.slow
    def test_that_leaves_a_thread_is_ended(self, host):
        """A non-daemon thread keeps the slot for the shutdown timeout at most; the result stands."""
        client = host.connect()
        first = host.job(client, 0, spec={"shutdown_timeout": 0.2}, do="thread")
        second = host.job(client, 1)
        assert client.value(first) == 0
        assert client.value(second) == 1

    @pytest.mark.slow
    def test_that_speaks_nonsense_costs_nobody_else(self, host):
        """What a process says on the agent's socket is checked: it fails alone, with a note."""
        client = host.connect()
        for num, data in enumerate(
            [
                "b'garbage' * 10",
                'wire.encode({"t": "outcome", "envelope": {"status": 5}})',
                'wire.encode({"t": "done", "envelope": {"status": "FAILED", "error": {"kind": "none"}}})',
                'wire.encode({"t": "done", "envelope": {"status": "COMPLETED"}, "parts": {"value": {"offset": -1}}})',
                'wire.encode({"t": "hello", "version": 1, "run": "x", "controller": "x", "host": "x"})',
            ]
        ):
            host.job(client, num, do="nonsense", data=data)
            assert client.result(f"{num}.1").header["envelope"]["status"] in ("COMPLETED", "FAILED")
        assert client.value(host.job(client, 9)) == 9
        assert "nonsense" in client.notes()

    def test_whose_application_cannot_be_imported_is_failed(self, host):
        """Every job fails with the import's error; the agent goes on."""
        client = host.connect(prepare=False)
        host.prepare(client, sys_path=[str(host.root)])
        first = host.job(client, 0)
        assert client.error(first)["kind"] == "import"
        second = host.job(client, 1)
        assert client.error(second)["kind"] == "import"
        assert client.expect("zygote").header["state"] == "failed"


class TestEnding:
    """Cancel, timeout, lease, finish."""

    @pytest.mark.slow
    def test_cancel_is_recorded_before_it_is_signalled(self, host):
        """The job's end is called what was decided, and its hooks are closed."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        client.send({"t": "cancel", "attempts": [attempt]})
        assert client.error(attempt)["kind"] == "cancelled"
        records = [record["r"] for record in host.log_lines() if record.get("a") == attempt]
        assert records.index("cancel") < records.index("outcome")
        assert host.lines("hooks") == ["start c 0", "end c 0 0 cancelled"]

    @pytest.mark.slow
    def test_a_job_that_does_not_listen_is_killed(self, host):
        """SIGTERM, the grace period, SIGKILL; the kind is what was decided, the hooks are closed by an epilogue."""
        client = host.connect()
        attempt = host.job(client, 0, spec={"grace": 0.2}, do="stubborn")
        host.started()
        client.send({"t": "cancel", "attempts": None})
        error = client.error(attempt)
        assert error["kind"] == "cancelled"
        assert error["message"] == "killed by SIGKILL"  # ours: nothing for the kernel's log to tell
        assert host.lines("terms")[0] == "0"
        assert host.lines("hooks") == ["start c 0", "end c 0 0 cancelled"]

    @pytest.mark.slow
    def test_timeout(self, host):
        """A job that takes too long fails with kind timeout, and says how long it had."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, spec={"timeout": 0.3}, do="gate", gate=gate)
        error = client.error(attempt)
        assert error["kind"] == "timeout"
        assert "0.3" in error["message"]

    @pytest.mark.slow
    def test_what_waits_is_cancelled_without_a_start(self, host):
        """It never ran: no hook, no process; the message is the one that was given."""
        gate = host.gate("g")
        client = host.connect()
        first = host.job(client, 0, do="gate", gate=gate)
        second = host.job(client, 1)
        host.started()
        client.send({"t": "cancel", "attempts": [second], "kind": "host", "why": "the code has changed"})
        error = client.error(second)
        assert (error["kind"], error["message"]) == ("host", "the code has changed")
        host.open_gate(gate)
        client.result(first)
        assert len(host.started()) == 1

    @pytest.mark.slow
    def test_finish_leaves_nothing(self, host):
        """No process, no spool: neither of what runs, nor of what escaped into a session of its own."""
        gate = host.gate("g")
        client = host.connect(hello={"slots": 2})
        agent = host.agent_pid(client)
        client.result(host.job(client, 0, do="escape"))
        host.job(client, 1, do="escape", then="gate", gate=gate)
        job = host.started(2)[1]
        wait_until(lambda: len(host.lines("escaped")) == 2, "both to escape")
        spool = host.spool
        client.send({"t": "finish"})
        client.expect("fatal", code="over")
        client.wait_over()
        for pid in [job.pid, agent, *map(int, host.lines("escaped"))]:
            wait_gone(pid)
        assert not spool.exists()
        assert host.processes() == []

    @pytest.mark.slow
    def test_finish_may_keep_the_spool(self, host):
        """With keep, what is not acknowledged can be fetched by a later connection."""
        client = host.connect()
        agent = host.agent_pid(client)
        client.result(host.job(client, 0, value="kept"))
        client.send({"t": "finish", "keep": True})
        wait_gone(agent)
        assert host.connect().value("0.1") == "kept"

    @pytest.mark.slow
    def test_a_lease_ends_the_jobs_of_a_controller_that_is_gone(self, host):
        """After the lease what runs and what waits is cancelled; the results wait for who comes."""
        gate = host.gate("g")
        client = host.connect(hello={"lease": 0.3})
        running = host.job(client, 0, do="gate", gate=gate)
        waiting = host.job(client, 1)
        job = host.started()[0]
        client.cut()
        wait_gone(job.pid)
        again = host.connect()
        assert again.error(running)["kind"] == "cancelled"
        assert again.error(waiting)["kind"] == "cancelled"

    @pytest.mark.slow
    def test_without_a_lease_jobs_go_on_alone(self, host):
        """A cut link changes nothing: the queue is worked through, and the results wait."""
        gate = host.gate("g")
        client = host.connect()
        for num in range(3):
            host.job(client, num, do="gate", gate=gate)
        host.started()
        client.cut()
        for num in range(3):
            host.started(num + 1)
            host.open_gate(gate)
        again = host.connect()
        assert [again.value(f"{num}.1") for num in range(3)] == [0, 1, 2]

    @pytest.mark.slow
    def test_an_agent_that_nobody_needs_ends(self, new_agent):
        """Without a controller and anything to do it goes, and its spool stays for the next one."""
        host = new_agent(patch="import remote_agent.agent.agent as agent; agent.IDLE_EXIT = 0.1")
        client = host.connect()
        agent = host.agent_pid(client)
        client.result(host.job(client, 0))
        client.cut()
        wait_gone(agent, "the idle agent")
        again = host.connect()
        assert host.agent_pid(again) != agent
        assert again.value("0.1") == 0

    @pytest.mark.slow
    def test_an_agent_that_nobody_ever_greeted_leaves_nothing(self, new_agent):
        """Its controller gave up while it started."""
        host = new_agent(patch="import remote_agent.agent.agent as agent; agent.UNGREETED_EXIT = 2.0")
        client = host.open()
        runs = host.work / "state" / "runs"
        wait_until(lambda: list(runs.glob("*/*/log")), "the agent to be up")
        client.cut()
        wait_until(lambda: not list(runs.iterdir()), "the agent to go")


#: What an agent may be sent, and the code of its answer.
NONSENSE = [
    (b"\0garbage between frames, longer than a head of a frame", "mark"),
    (wire.encode({"t": "ping", "n": 1})[:2] + b"\x07" + b"\0" * 40, "version"),
    (wire._HEAD.pack(b"RL", wire.VERSION, 2, 1 << 63, 0), "size"),
    (wire.encode({"t": "no such thing"}), "unknown"),
    (wire.encode({"t": "started", "attempt": "0.1", "slot": 0, "at": 0}), "unknown"),
    (wire.encode({"t": "ping"}), "field"),
    (wire.encode({"t": "job", "spec": {"attempt_id": "../../x"}}), "field"),
    (wire.encode({"t": "job", "spec": {}}), "field"),
    (wire.encode({"t": "cancel", "attempts": [["0.1"]]}), "field"),
    (wire.encode({"t": "blobs", "items": [1, 2]}), "field"),
    (wire.encode({"t": "manifest", "sha256": "../../../etc/passwd"}), "field"),
    (wire.encode({"t": "blob", "sha256": "../x", "size": 1, "offset": 0}), "store"),
]


class TestLinks:
    """Connections come and go."""

    @pytest.mark.slow
    def test_a_result_is_sent_to_every_link_until_it_is_acknowledged(self, host):
        """A link that ends before the acknowledgement costs nothing."""
        client = host.connect()
        attempt = host.job(client, 0, value="x" * 1000)
        client.result(attempt)
        client.cut()
        second = host.connect()
        assert host.known(second) == {attempt: "final"}
        assert second.value(attempt) == "x" * 1000
        second.ack(attempt)
        second.send({"t": "ping", "n": 1})
        second.expect("pong", n=1)
        assert host.known(host.connect()) == {}

    @pytest.mark.slow
    def test_the_newest_link_wins(self, host):
        """A controller whose old link is half dead is served on the new one."""
        old = host.connect()
        new = host.connect(prepare=False)
        old.wait_over()
        assert new.value(host.job(new, 0)) == 0

    @pytest.mark.slow
    def test_a_silent_controller_is_asked_and_then_let_go(self, new_agent):
        """Pings go out at a quarter of the heartbeat; without an answer the link is closed."""
        host = new_agent(patch="import remote_agent.shared.protocol as p; p.HEARTBEAT = 1.0")
        client = host.connect(prepare=False)
        client.answers = False
        client.expect("ping")
        client.wait_over()
        again = host.connect(prepare=False)
        again.expect("ping", n=5)
        assert not again.is_over

    @pytest.mark.slow
    def test_a_controller_that_drips_is_let_go(self, new_agent):
        """A byte now and then is no sign of life, whatever it is a part of; the next link is served."""
        host = new_agent(patch="import remote_agent.shared.protocol as p; p.HEARTBEAT = 1.0")
        client = host.connect(prepare=False)
        client.answers = False
        long = wire.encode({"t": "job", "spec": {}}, bytes(1 << 20))
        for at in range(len(long)):
            client.send_raw(long[at : at + 1])
            client.read(0.02)
            if client.is_over:
                break
        assert at < wire.STEP
        again = host.connect()
        assert again.value(host.job(again, 0)) == 0

    @pytest.mark.slow
    def test_nonsense_costs_the_link_and_nothing_else(self, host):
        """Whatever comes is answered with a typed error; jobs run on, and the next link is served."""
        gate = host.gate("g")
        client = host.connect()
        agent = host.agent_pid(client)
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        for data, code in NONSENSE:
            client.send_raw(data)
            assert client.expect("fatal").header["code"] == code, data
            client.close()
            client = host.connect(prepare=False)
        assert host.agent_pid(client) == agent
        host.open_gate(gate)
        assert client.value(attempt) == 0

    @pytest.mark.slow
    def test_a_hello_for_somebody_else_is_refused(self, host):
        """Another run, another version, slots that are none: a typed error, and the agent goes on."""
        hello = {"t": "hello", "version": wire.VERSION, "run": host.run, "controller": "c", "host": "h", "slots": 1}
        for field, value, code in [
            ("run", "another", "run"),
            ("version", 99, "version"),
            ("slots", -1, "field"),
            ("slots", "many", "field"),
        ]:
            client = host.open()
            client.send({**hello, field: value})
            assert client.expect("fatal").header["code"] == code
            client.wait_over()
        client = host.connect()
        assert client.value(host.job(client, 0)) == 0

    def test_a_message_before_hello_is_refused(self, host):
        """Nobody is served who has not said who he is."""
        client = host.open()
        client.send({"t": "ping", "n": 1})
        assert client.expect("fatal").header["code"] == "order"

    @pytest.mark.slow
    def test_a_vanished_socket_is_made_anew(self, host):
        """Somebody cleans up: the agent is reached all the same, and stays the only one."""
        client = host.connect()
        gate = host.gate("g")
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        (host.spool / "agent.sock").unlink()
        client.cut()
        again = host.connect()
        assert host.agent_pid(again) == host.agent_pid(client)
        host.open_gate(gate)
        assert again.value(attempt) == 0

    @pytest.mark.slow
    def test_a_slow_controller_blocks_no_job_and_costs_no_memory(self, host):
        """Results wait on the disk, not in memory, for a controller that does not read."""
        client = host.connect()
        agent = host.agent_pid(client)
        before = _resident(agent)
        for num in range(40):
            host.job(client, num, do="large", size=1 << 20)
        host.started(40)
        wait_until(lambda: sum(record["r"] == "final" for record in host.log_lines()) == 40, "40 results in the spool")
        assert _resident(agent) - before < 16 << 20
        assert len(client.value("39.1")) == 1 << 20

    @pytest.mark.slow
    def test_two_runs_do_not_meet(self, host, new_agent):
        """Each has its agent and its spool."""
        other = new_agent()
        one, two = host.connect(), other.connect()
        assert host.agent_pid(one) != host.agent_pid(two)
        assert one.value(host.job(one, 0, value="one")) == "one"
        assert two.value(other.job(two, 0, value="two")) == "two"


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
class TestOutput:
    """What jobs print and write."""

    def test_binary_output_arrives_byte_for_byte(self, host):
        """Every byte value, more than a chunk of it."""
        client = host.connect()
        attempt = host.job(client, 0, do="print", blocks=9)
        client.result(attempt)
        assert client.stream(attempt) == bytes(range(256)) * 256 * 9

    def test_endless_output_is_capped_with_a_mark(self, host):
        """Up to the cap as it was, then the mark; the sizes say what is missing."""
        client = host.connect()
        attempt = host.job(client, 0, spec={"max_output_bytes": 100_000}, do="print", blocks=40)
        client.result(attempt)
        out = client.stream(attempt)
        assert out[:100_000] == (bytes(range(256)) * 256 * 40)[:100_000]
        assert b"was cut here" in out[100_000:]
        assert len(out) < 101_000
        sizes = client.expect("files_end").header["sizes"]
        assert sizes["stdout"] == 100_000
        assert sizes["stdout_dropped"] > 0

    def test_what_is_printed_is_shown_while_it_is_looked_at(self, host):
        """Every running job's, not the first one's alone."""
        gates = [host.gate(f"g{num}") for num in range(2)]
        (host.code / "app.py").write_text(
            (host.code / "app.py")
            .read_text()
            .replace('    if do == "gate":\n', "    if do == \"gate\":\n        print('hello', cfg.num, flush=True)\n")
        )
        client = host.connect(hello={"slots": 2, "live": True})
        attempts = [host.job(client, num, do="gate", gate=gate) for num, gate in enumerate(gates)]
        for num, attempt in enumerate(attempts):
            client.wait(lambda attempt=attempt: client.stream(attempt), f"output of {attempt}")
            assert client.stream(attempt) == f"hello {num}\n".encode()
        for gate in gates:
            host.open_gate(gate)
        for attempt in attempts:
            client.result(attempt)

    def test_files_come_back(self, host):
        """Small ones many to a frame, large ones in chunks; what cannot be sent is named."""
        client = host.connect()
        out = host.root / "work" / "state" / "runs" / host.run
        client.send({"t": "ping", "n": 1})
        folder = str(host.spool / "outputs" / "0")
        files = {"a/small": 10, "b": 70_000, "big": 600_000}
        attempt = host.job(client, 0, do="files", out=folder, files=files)
        client.result(attempt)
        small = {item[0]: item[2] for f in client.all("files", attempt=attempt) for item in f.header["items"]}
        assert small["a/small"] == 10
        large = {f.header["path"]: f.header["size"] for f in client.all("chunk", attempt=attempt)}
        assert large == {"b": 70_000, "big": 600_000}
        assert out.exists()

    def test_a_large_result_travels_in_chunks(self, host):
        """Over a mebibyte it lies in a file of its own, until it is acknowledged."""
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        assert client.value(attempt) == bytes(3 << 20)
        file = host.spool / "payload" / f"{attempt}.result"
        assert file.exists()
        client.ack(attempt)
        wait_until(lambda: not file.exists(), "the result's file to go")

    def test_a_result_that_was_truncated_is_no_success(self, host):
        """Its job is FAILED and says why; the link and the other jobs go on."""
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        client.result(attempt)
        os.truncate(host.spool / "payload" / f"{attempt}.result", 1 << 20)
        again = host.connect()
        error = again.error(attempt)
        assert error["kind"] == "host"
        assert "cannot be read" in error["message"]
        assert again.value(host.job(again, 1)) == 1

    #: The disk takes a long result when the gate is opened.
    SLOW_DISK = (
        "import remote_agent.agent.spool.attempts as attempts; attempts.sync_file = lambda path: open({!r}).read()"
    )

    def _sent_ahead(self, host: AgentHost, gate: str) -> tuple[Client, str]:
        """A link that has all bytes of a result which is not on the disk yet."""
        host.patch = self.SLOW_DISK.format(str(host.code / gate))
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        self._all_sent(client, attempt)
        return client, attempt

    @staticmethod
    def _all_sent(client: Client, attempt: str) -> None:
        client.wait(
            lambda: any(
                frame.header["offset"] + len(frame.payload) == frame.header["size"]
                for frame in client.all("chunk", attempt=attempt, kind="result")
            ),
            "the last chunk",
        )

    def test_a_large_result_is_told_when_it_is_on_the_disk(self, host):
        """Its bytes go out meanwhile, once; what makes them a result comes behind them."""
        gate = host.gate("disk")
        client, attempt = self._sent_ahead(host, gate)
        other = host.job(client, 1, value="small")
        assert client.value(other) == "small"
        assert client.all("final", attempt=attempt) == []
        host.open_gate(gate)
        assert client.value(attempt) == bytes(3 << 20)
        offsets = [frame.header["offset"] for frame in client.all("chunk", attempt=attempt)]
        assert len(offsets) == len(set(offsets))

    def test_a_large_result_that_was_sent_ahead_is_sent_again_to_a_new_link(self, host):
        """Whole: the new link has none of it."""
        gate = host.gate("disk")
        client, attempt = self._sent_ahead(host, gate)
        client.cut()
        again = host.connect(prepare=False)
        host.open_gate(gate)
        assert again.value(attempt) == bytes(3 << 20)

    def test_a_disk_that_fails_with_a_large_result_is_told(self, host):
        """What the file holds is delivered; nothing more starts until the log can be written again."""
        host.patch = """
        import remote_agent.agent.spool.attempts as attempts
        def sync_file(path):
            raise OSError(5, "{}: Input/output error".format(path))
        attempts.sync_file = sync_file
        """
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        assert client.value(attempt) == bytes(3 << 20)
        assert f"{attempt}.result: Input/output error" in client.notes()


class TestCode:
    """A snapshot of the application's code."""

    FILES: ClassVar = {"app.py": APP.encode(), "pkg/__init__.py": b"", "pkg/data.txt": b"data"}

    def manifest(self) -> tuple[str, bytes, dict[str, bytes]]:
        """The snapshot's name, its manifest, its contents by name."""
        contents = {hashlib.sha256(data).hexdigest(): data for data in self.FILES.values()}
        files = [[path, 0o644, len(data), hashlib.sha256(data).hexdigest()] for path, data in self.FILES.items()]
        manifest = zlib.compress(json.dumps({"version": 1, "files": files, "links": []}).encode())
        return hashlib.sha256(manifest).hexdigest(), manifest, contents

    def send(self, client, *, wait: bool = True) -> str:
        """Offer the snapshot and send what is missing; returns the name of its manifest."""
        name, manifest, contents = self.manifest()
        client.send({"t": "manifest", "sha256": name})
        if client.expect("missing").header["manifest"] == name:
            client.send({"t": "blob", "sha256": name, "size": len(manifest), "offset": 0}, manifest)
            client.wait(lambda: len(client.all("missing")) == 2, "the list of contents")
        self.answer(client, contents)
        return name

    @staticmethod
    def answer(client, contents: dict[str, bytes]) -> list[str]:
        """Send what the last `missing` named."""
        wanted = client.all("missing")[-1].header["sha256"]
        items = [[sha, len(contents[sha])] for sha in wanted]
        client.send({"t": "blobs", "items": items}, b"".join(contents[sha] for sha in wanted))
        return wanted

    @pytest.mark.slow
    def test_travels_once(self, host, new_agent):
        """Each run has a tree of its own, made from what the host has already."""
        client = host.connect(prepare=False)
        name = self.send(client)
        host.prepare(client, code_blob=name, sys_path=["."], cwd="pkg")
        assert client.value(host.job(client, 0)) == 0
        assert (host.spool / "code" / "pkg" / "data.txt").read_bytes() == b"data"
        other = new_agent(work=host.root / "work")
        again = other.connect(prepare=False)
        again.send({"t": "manifest", "sha256": name})
        assert again.expect("missing").header["sha256"] == []
        other.prepare(again, code_blob=name, sys_path=["."], cwd="pkg")
        assert again.value(other.job(again, 0)) == 0
        assert other.spool != host.spool

    @pytest.mark.slow
    def test_that_was_altered_in_the_cache_is_asked_for_again(self, host, new_agent):
        """A content that is not what its name says is never run."""
        client = host.connect(prepare=False)
        name = self.send(client)
        client.send({"t": "ping", "n": 1})
        client.expect("pong")
        sha = hashlib.sha256(b"data").hexdigest()
        (blob,) = (host.root / "work" / "cache").rglob(sha)
        blob.write_bytes(b"evil")
        other = new_agent(work=host.root / "work")
        again = other.connect(prepare=False)
        again.send({"t": "manifest", "sha256": name})
        again.expect("missing")
        other.prepare(again, code_blob=name, sys_path=["."], cwd="pkg")
        again.wait(lambda: len(again.all("missing")) == 2, "the altered content to be asked for")
        assert self.answer(again, {sha: b"data"}) == [sha]
        assert again.value(other.job(again, 0)) == 0
        assert (other.spool / "code" / "pkg" / "data.txt").read_bytes() == b"data"

    @pytest.mark.slow
    @pytest.mark.parametrize("also", ["", "code"])
    def test_that_is_deleted_is_not_missed(self, host, also):
        """The cache goes, and then the zygote: the next one has what was laid out, or the controller is asked for it again."""
        client = host.connect(prepare=False)
        name = self.send(client)
        host.prepare(client, code_blob=name, sys_path=["."], cwd="pkg")
        client.value(host.job(client, 0))
        shutil.rmtree(host.work / "cache")
        if also:
            shutil.rmtree(host.spool / also)
        asked = len(client.all("missing"))
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGKILL)
        if also:
            client.wait(lambda: len(client.all("missing")) > asked, "the manifest to be asked for")
            assert client.all("missing")[-1].header["manifest"] == name
            _, manifest, contents = self.manifest()
            client.send({"t": "blob", "sha256": name, "size": len(manifest), "offset": 0}, manifest)
            client.wait(lambda: len(client.all("missing")) > asked + 1, "the contents to be asked for")
            self.answer(client, contents)
        assert client.value(host.job(client, 1)) == 1

    @pytest.mark.slow
    def test_that_never_comes_fails_what_waits_for_it(self, new_agent):
        """It is asked for some times, and then the jobs are told what is missing."""
        host = new_agent(
            patch="import remote_agent.agent.zygotes.pool as z; z.CONTENT_PATIENCE = z._CHECK_EVERY = 0.05"
        )
        client = host.connect(prepare=False)
        host.prepare(client, code_blob="0" * 64)
        attempt = host.job(client, 0)
        error = client.error(attempt)
        assert error["kind"] == "host"
        assert "the code cannot be found in" in error["message"]
        assert len(client.all("missing")) == 3

    def test_that_cannot_be_sent_fails_what_waits_for_it(self, host):
        """With the reason that the controller gave."""
        client = host.connect(prepare=False)
        host.prepare(client, code_blob="0" * 64)
        attempt = host.job(client, 0)
        client.send({"t": "withheld", "message": "app.py has changed since the run began"})
        assert client.error(attempt)["message"] == "app.py has changed since the run began"

    @pytest.mark.slow
    def test_a_large_payload_comes_ahead(self, host):
        """As a blob of the run, which goes with the job."""
        client = host.connect()
        payload = host.payload(0, do="value", value="x" * 2_000_000)
        sha = hashlib.sha256(payload).hexdigest()
        for offset in range(0, len(payload), wire.CHUNK):
            header = {"t": "blob", "sha256": sha, "size": len(payload), "offset": offset, "scope": "run"}
            client.send(header, payload[offset : offset + wire.CHUNK])
        attempt = host.job(client, 0, payload_blob=sha)
        assert client.value(attempt) == "x" * 2_000_000
        blob = host.spool / "blobs" / sha[:2] / sha
        assert blob.exists()
        client.ack(attempt)
        wait_until(lambda: not blob.exists(), "the payload to go")


@pytest.mark.slow
class TestRecovery:
    """The agent, the zygote, or both die."""

    def test_a_job_outlives_its_agent(self, host):
        """The next agent finds it running, and takes its result; it ran once, its hooks fired once."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        host.kill_agent(client)
        again = host.connect()
        assert host.known(again) == {attempt: "running"}
        host.open_gate(gate)
        assert again.value(attempt) == 0
        assert len(host.started()) == 1
        assert host.lines("hooks") == ["start c 0", "end c 0 0 "]

    def test_a_job_that_ends_without_an_agent_is_adopted(self, host):
        """What it said to its orphan file is its result."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        job = host.started()[0]
        host.kill_agent(client)
        host.open_gate(gate)
        wait_gone(job.pid)
        again = host.connect()
        assert again.value(attempt) == 0
        assert host.lines("hooks") == ["start c 0", "end c 0 0 "]

    @pytest.mark.parametrize("name", ["outcome", "final"])
    def test_a_result_that_was_read_and_not_written_is_not_lost(self, new_agent, name):
        """The agent dies with it in its hands: the job has kept it, and the next agent takes it from there."""
        patch = f"""
            import os
            import remote_agent.agent.spool.attempts as attempts
            whole = attempts.Attempts.record
            def record(self, attempt, name, *more):
                if name == {name!r} and os.path.exists(os.path.expanduser("~/die")):
                    os.kill(os.getpid(), 9)
                return whole(self, attempt, name, *more)
            attempts.Attempts.record = record
        """
        host = new_agent(patch=patch, callbacks={"c": ()})
        (host.root / "die").touch()
        client = host.connect()
        attempt = host.job(client, 0, value="kept")
        wait_gone(host.agent_pid(client), "the agent")
        job = host.started()[0]
        wait_gone(job.pid, "the job")
        (host.root / "die").unlink()
        again = host.connect()
        assert again.value(attempt) == "kept"
        assert len(host.started()) == 1
        assert host.lines("hooks") == ["start c 0", "end c 0 0 "]

    @pytest.mark.slow
    def test_a_job_that_lingers_without_an_agent_is_ended_by_the_next(self, host):
        """Its result is taken from the orphan file while a thread of it still runs, and that is ended."""
        gate = host.gate("g")
        client = host.connect()
        text = (host.code / "app.py").read_text()
        (host.code / "app.py").write_text(
            text.replace('    if do == "thread":\n', '    if do == "thread":\n        gate(cfg.gate)\n')
        )
        attempt = host.job(client, 0, spec={"shutdown_timeout": 0.2}, do="thread", gate=gate)
        job = host.started()[0]
        host.kill_agent(client)
        host.open_gate(gate)
        orphan = host.spool / f"orphan-{attempt}"
        wait_until(lambda: orphan.exists() and b'"done"' in orphan.read_bytes(), "the job's own record")
        again = host.connect()
        assert again.value(attempt) == 0
        wait_gone(job.pid, "the job with a thread")

    @pytest.mark.slow
    def test_a_job_that_dies_without_an_agent_has_its_hooks_closed(self, host):
        """The next agent's zygote fires what is owed, and the error says what can be known."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        job = host.started()[0]
        # What the callback has seen is in the spool: an agent that is killed before it has read that cannot know it.
        wait_until(lambda: any(record["r"] == "state" for record in host.log_lines()), "the callback's state")
        host.kill_agent(client)
        os.kill(job.pid, signal.SIGKILL)
        wait_gone(job.pid)
        again = host.connect()
        assert again.error(attempt)["kind"] == "killed"
        assert host.lines("hooks") == ["start c 0", "end c 0 0 killed"]

    @pytest.mark.slow
    def test_a_job_outlives_its_zygote(self, host):
        """It goes on, and another zygote takes the next job."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGKILL)
        client.wait(lambda: len(client.all("zygote", state="ready")) == 2, "another zygote")
        host.open_gate(gate)
        assert client.value(attempt) == 0
        assert client.value(host.job(client, 1)) == 1
        assert host.lines("hooks") == ["start c 0", "end c 0 0 ", "start c 1", "end c 1 1 "]

    def test_a_zygote_whose_socket_somebody_holds_open_is_found_dead(self, new_agent):
        """Its end is not read from its socket, which a process that the import forked has, too."""
        host = new_agent()
        held = "import os, signal\nif os.fork() == 0:\n    os.setsid(); signal.pause()\n"
        (host.code / "app.py").write_text(held + (host.code / "app.py").read_text())
        client = host.connect()
        client.value(host.job(client, 0))
        zygote = min(host.zygote_pids())
        os.kill(zygote, signal.SIGKILL)
        client.wait(lambda: len(client.all("zygote", state="ready")) == 2, "another zygote")
        assert client.value(host.job(client, 1)) == 1

    @pytest.mark.parametrize("is_agent_gone", [False, True])
    def test_a_job_that_its_zygote_never_forked_starts_with_the_next(self, host, is_agent_gone):
        """Handed over, and nobody had it yet: it runs once, and is not FAILED by the death of a process that was not its own."""
        client = host.connect()
        client.value(host.job(client, 0))
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGSTOP)
        attempt = host.job(client, 1)
        client.expect("started", attempt=attempt)
        if is_agent_gone:
            host.kill_agent(client)
        os.kill(zygote, signal.SIGKILL)
        again = host.connect() if is_agent_gone else client
        assert again.value(attempt) == 1
        assert [job.num for job in host.started(2)] == [0, 1]
        assert host.lines("hooks")[2:] == ["start c 1", "end c 1 1 "]

    def test_a_job_that_died_with_its_zygote_before_either_said_so_does_not_start_again(self, new_agent):
        """It has left a sign that it began: what it did until then is not done twice."""
        patch = """
            import remote_agent.agent.zygotes.pool as zygotes
            said = zygotes.ZygoteClient.receive
            def receive(self):
                frames, gone = said(self)
                return [frame for frame in frames if frame.header["t"] != "forked"], gone
            zygotes.ZygoteClient.receive = receive
        """
        host = new_agent(patch=patch)
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate="never")
        job = host.started()[0]
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGSTOP)
        os.kill(job.pid, signal.SIGKILL)
        os.kill(zygote, signal.SIGKILL)
        assert client.error(attempt)["kind"] == "killed"
        assert len(host.started()) == 1

    @pytest.mark.slow
    def test_a_job_whose_zygote_died_first_has_its_hooks_closed(self, host):
        """Its death is found by its pid; the epilogue is the next zygote's."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        job = host.started()[0]
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGKILL)
        os.kill(job.pid, signal.SIGKILL)
        assert client.error(attempt)["kind"] == "killed"
        assert host.lines("hooks") == ["start c 0", "end c 0 0 killed"]

    @pytest.mark.slow
    def test_what_waits_starts_only_when_the_controller_says_so(self, host):
        """The next agent holds it: what was given up in the meantime is cancelled first."""
        gate = host.gate("g")
        client = host.connect()
        running = host.job(client, 0, do="gate", gate=gate)
        unwanted = host.job(client, 1)
        wanted = host.job(client, 2)
        client.send({"t": "ping", "n": 1})
        client.expect("pong")
        host.started()
        host.kill_agent(client)
        again = host.connect(go=False)
        host.open_gate(gate)
        again.result(running)
        again.send({"t": "cancel", "attempts": [unwanted], "kind": "lost"})
        assert again.error(unwanted)["kind"] == "lost"
        assert len(host.started()) == 1
        again.send({"t": "go"})
        assert again.value(wanted) == 2

    @pytest.mark.slow
    def test_what_still_runs_keeps_its_slot(self, host):
        """The next agent does not start a job beside it."""
        gate = host.gate("g")
        client = host.connect()
        first = host.job(client, 0, do="gate", gate=gate)
        host.started()
        second = host.job(client, 1)
        client.send({"t": "ping", "n": 1})
        client.expect("pong")
        host.kill_agent(client)
        again = host.connect()
        again.expect("zygote", state="ready")
        again.send({"t": "ping", "n": 2})
        again.expect("pong", n=2)
        assert len(host.started()) == 1
        host.open_gate(gate)
        assert again.value(first) == 0
        assert again.value(second) == 1

    @pytest.mark.slow
    def test_a_timeout_and_a_cancel_outlive_the_agent(self, host):
        """The next agent ends what the last one was about to end, and calls it the same."""
        client = host.connect(hello={"slots": 2})
        late = host.job(client, 0, spec={"timeout": 3.0, "grace": 0.2}, do="stubborn")
        cancelled = host.job(client, 1, spec={"grace": 600.0}, do="stubborn")
        host.started(2)
        client.send({"t": "cancel", "attempts": [cancelled]})
        wait_until(lambda: "1" in host.lines("terms"), "SIGTERM at the cancelled job")
        host.kill_agent(client)
        again = host.connect(hello={"slots": 2})
        assert again.error(late)["kind"] == "timeout"
        again.send({"t": "cancel", "attempts": [cancelled], "kill": True})
        assert again.error(cancelled)["kind"] == "cancelled"

    REBOOTED = "import remote_agent.agent.agent as agent; agent.boot_id = lambda: 'another boot'"

    def _power_cut(self, host: AgentHost, client: Client) -> None:
        """Everything that runs is gone at once; the next agent finds another boot id."""
        for pid in [*host.processes(), *(job.pid for job in host.started())]:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        client.wait_over()
        host.patch = self.REBOOTED

    @pytest.mark.slow
    def test_a_power_cut_costs_what_was_claimed(self, host):
        """What ran, and what was about to: nobody can say whether that has started, so it does not start again."""
        gate = host.gate("g")
        client = host.connect()
        running = host.job(client, 0, do="gate", gate=gate)
        host.started()
        claimed = host.job(client, 1)
        queued = host.job(client, 2)
        wait_until(lambda: {"r": "claimed", "a": claimed} in self._said(host), "the next job to be claimed")
        self._power_cut(host, client)
        again = host.connect()
        assert again.error(running)["kind"] == again.error(claimed)["kind"] == "lost"
        assert again.value(queued) == 2
        assert len(host.started(2)) == 2

    @pytest.mark.slow
    def test_a_power_cut_costs_only_what_ran_where_jobs_are_long(self, new_agent):
        """A claim that found no slot is given back, so that what waits is known to wait."""
        host = new_agent(patch="import remote_agent.agent.queue as queue; queue._LONG = 1.5", callbacks={"c": ()})
        gate = host.gate("g")
        client = host.connect()
        running = host.job(client, 0, do="gate", gate=gate)
        host.started()
        waiting = [host.job(client, 1), host.job(client, 2)]
        wait_until(lambda: {"r": "unclaimed", "a": waiting[0]} in self._said(host), "the claim to be given back")
        self._power_cut(host, client)
        again = host.connect()
        assert again.error(running)["kind"] == "lost"
        assert [again.value(attempt) for attempt in waiting] == [1, 2]
        assert sorted(host.lines("hooks")) == sorted(
            ["start c 0", "end c 0 0 lost", "start c 1", "end c 1 1 ", "start c 2", "end c 2 2 "]
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("is_lost", [False, True])
    def test_a_power_cut_before_a_large_result_is_on_the_disk(self, host, is_lost):
        """Its file is looked at before it is believed: whole, it is the result; else nobody knows what it was."""
        host.patch = TestOutput.SLOW_DISK.format(str(host.code / host.gate("disk")))
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        wait_until(lambda: {"r": "final", "a": attempt} in self._said(host), "the log to have the result")
        self._power_cut(host, client)
        if is_lost:
            os.truncate(host.spool / "payload" / f"{attempt}.result", 1 << 20)
        again = host.connect()
        if is_lost:
            assert again.error(attempt)["kind"] == "lost"
            assert "had not reached the disk" in again.notes()
        else:
            assert again.value(attempt) == bytes(3 << 20)
        assert len(host.started()) == 1

    #: After a restart, long results are read when the gate is opened; then again at once.
    SLOW_READ = (
        "\nimport remote_agent.agent.spool.attempts as attempts"
        "\nreal, gates = attempts._is_whole, [{!r}]"
        "\nattempts._is_whole = lambda *args: (gates and open(gates.pop()).read()) and False or real(*args)"
    )

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_after_a_restart_it_answers_before_it_has_read_long_results(self, host, is_lost):
        """What waits starts, and what is asked is answered; the result is told when it was read, and only if it is whole."""
        host.patch = TestOutput.SLOW_DISK.format(str(host.code / host.gate("disk")))
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        wait_until(lambda: {"r": "final", "a": attempt} in self._said(host), "the log to have the result")
        self._power_cut(host, client)
        host.patch += self.SLOW_READ.format(str(host.code / host.gate("read")))
        if is_lost:
            os.truncate(host.spool / "payload" / f"{attempt}.result", 1 << 20)
        again = host.connect()
        assert attempt in json.loads(again.expect("welcome").payload)
        assert again.value(host.job(again, 1)) == 1
        assert not again.all("final", attempt=attempt) + again.all("chunk", attempt=attempt)
        third = host.connect()
        third.expect("welcome")
        host.open_gate("read")
        if is_lost:
            assert third.error(attempt)["kind"] == "lost"
            assert "had not reached the disk" in third.notes()
        else:
            assert third.value(attempt) == bytes(3 << 20)
        assert len(host.started(2)) == 2

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_an_outcome_is_read_before_it_stands(self, new_agent, is_lost):
        """The host went down in an end hook: what its job had come to is told where all of it is there."""
        host = new_agent(callbacks={"c": (("trap", "gate"),)})
        host.gate("end")
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        wait_until(lambda: host.lines("hooks")[1:], "the end hook")
        wait_until(lambda: {"r": "outcome", "a": attempt} in self._said(host), "the log to have the outcome")
        self._power_cut(host, client)
        host.patch += self.SLOW_READ.format(str(host.code / host.gate("read")))
        if is_lost:
            os.truncate(host.spool / "payload" / f"{attempt}.result", 1 << 20)
        again = host.connect()
        again.expect("zygote", state="ready")
        again.send({"t": "ping", "n": 7})
        again.expect("pong", n=7)
        assert not again.all("final", attempt=attempt)
        host.open_gate("read")
        if is_lost:
            assert again.error(attempt)["kind"] == "lost"
        else:
            assert again.value(attempt) == bytes(3 << 20)

    def test_the_end_of_a_run_does_not_wait_for_what_is_read(self, host):
        """Nobody asks for that result any more."""
        host.patch = TestOutput.SLOW_DISK.format(str(host.code / host.gate("disk")))
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        wait_until(lambda: {"r": "final", "a": attempt} in self._said(host), "the log to have the result")
        self._power_cut(host, client)
        host.patch += (
            "\nimport remote_agent.agent.spool.attempts as attempts"
            "\ndef endless(parts, goes_on):"
            "\n    open({!r}, 'w').close()"
            "\n    while goes_on(): pass"
            "\nattempts._is_whole = endless"
        ).format(str(host.code / "reading"))
        again = host.connect()
        wait_until((host.code / "reading").exists, "the result to be read")
        spool = host.spool
        again.send({"t": "finish", "keep": False})
        again.wait_over()
        wait_until(lambda: not spool.exists(), "the spool to be gone")

    @pytest.mark.slow
    def test_a_claim_that_was_given_back_is_made_again(self, new_agent):
        """With the next slot, and on the disk before the job starts."""
        host = new_agent(patch="import remote_agent.agent.queue as queue; queue._LONG = 1.5")
        gate = host.gate("g")
        client = host.connect()
        running = host.job(client, 0, do="gate", gate=gate)
        host.started()
        waiting = host.job(client, 1)
        wait_until(lambda: {"r": "unclaimed", "a": waiting} in self._said(host), "the claim to be given back")
        host.open_gate(gate)
        assert [client.value(attempt) for attempt in (running, waiting)] == [0, 1]
        said = [one["r"] for one in self._said(host) if one["a"] == waiting]
        assert said[:5] == ["accepted", "claimed", "unclaimed", "claimed", "started"]

    @staticmethod
    def _said(host: AgentHost) -> list[dict[str, str]]:
        """Which records the log has, of which attempts."""
        return [{name: line[name] for name in ("r", "a")} for line in host.log_lines()]

    def test_a_torn_tail_of_the_log_is_cut_off(self, host):
        """What was whole before it is known, and what was behind it is kept aside."""
        client = host.connect()
        attempt = host.job(client, 0, value="whole")
        client.result(attempt)
        host.kill_agent(client)
        log = host.spool / "log"
        with log.open("ab") as file:
            file.write(b"RLG1\0\0\0\x10 half a record")
        again = host.connect()
        assert again.value(attempt) == "whole"
        assert "torn record" in again.notes()
        assert list(host.spool.glob("log.damaged.*"))

    def test_an_altered_record_costs_what_it_said_and_nothing_else(self, host):
        """Results before and behind it are delivered; what may have started does not start again."""
        gate = host.gate("g")
        client = host.connect()
        first = host.job(client, 0, value="before")
        client.result(first)
        boot = client.expect("welcome").header["boot_id"]
        host.job(client, 1, do="gate", gate=gate)
        waiting = host.job(client, 2)
        host.started(2)
        host.open_gate(gate)
        last = "1.1"
        client.result(last)
        client.result(waiting)
        host.kill_agent(client)
        self._alter(host, waiting)
        again = host.connect()
        assert again.value(first) == "before"
        assert again.value(last) == 1
        assert host.known(again)[waiting] == "final"
        assert "altered" in again.notes()
        assert again.expect("welcome").header["boot_id"] != boot
        assert len(host.started(3)) == 3

    @staticmethod
    def _alter(host: AgentHost, attempt: str) -> None:
        """Flip a bit in the record by which an attempt was claimed."""
        log = host.spool / "log"
        data = bytearray(log.read_bytes())
        at = data.index(b'"r":"claimed","a":"%s"' % attempt.encode())
        data[at + 3] ^= 1
        log.write_bytes(data)

    def test_a_spool_of_another_version_is_refused_by_name(self, host):
        """Nothing is touched, and the message says which version was found."""
        client = host.connect()
        host.kill_agent(client)
        log = host.spool / "log"
        data = bytearray(log.read_bytes())
        data[7] = 9
        log.write_bytes(data)
        again = host.open()
        again.wait_over()
        assert log.read_bytes() == bytes(data)
        crash = host.spool / "agent.err"
        wait_until(lambda: "version 9" in crash.read_text(), "the agent's reason")
        crash.unlink()

    def test_a_long_log_is_rewritten(self, new_agent):
        """It holds what is needed, under the same id, and the next agent reads it."""
        host = new_agent(patch="import remote_agent.agent.spool.log as spool; spool._COMPACT_FROM = 20000")
        client = host.connect()
        boot = client.expect("welcome").header["boot_id"]
        log = host.spool / "log"
        first = log.stat().st_ino
        kept = host.job(client, 0, value="kept")
        client.result(kept)
        for num in range(1, 6):
            attempt = host.job(client, num, value="x" * 9000)
            client.result(attempt)
            client.ack(attempt)
        wait_until(lambda: log.stat().st_ino != first, "the log to be rewritten")
        host.kill_agent(client)
        again = host.connect()
        assert again.value(kept) == "kept"
        assert set(host.known(again)) <= {kept, "5.1"}
        assert again.expect("welcome").header["boot_id"] == boot


class TestBrokenHost:
    """Disks that are full or gone, too few descriptors."""

    FULL = """
        import errno, os
        import remote_agent.agent.spool.log as spool
        def full(write):
            def attempt(*arguments):
                if os.path.exists(os.path.expanduser("~/full")):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(*arguments)
            return staticmethod(attempt)
        spool.os = type("os", (), dict(vars(os), pwrite=full(os.pwrite), write=full(os.write)))
    """

    @pytest.mark.slow
    def test_a_full_spool_gives_back_what_has_not_started(self, new_agent):
        """It says so; what runs delivers its result from memory; when there is room again, jobs are taken."""
        host = new_agent(patch=self.FULL, callbacks={"c": ()})
        gate = host.gate("g")
        client = host.connect()
        running = host.job(client, 0, do="gate", gate=gate)
        host.started()
        (host.root / "full").touch()
        waiting = host.job(client, 1)
        assert "No space left" in client.expect("dropped", attempt=waiting).header["why"]
        assert "No space left" in client.notes()
        host.open_gate(gate)
        assert client.value(running) == 0
        (host.root / "full").unlink()
        client.expect("opened")
        assert client.value(host.job(client, 1)) == 1
        assert host.lines("hooks") == ["start c 0", "end c 0 0 ", "start c 1", "end c 1 1 "]

    @pytest.mark.slow
    def test_a_result_that_only_memory_has_is_spooled_later(self, new_agent):
        """It is not lost with the link, and when there is room it is on the disk as any other."""
        host = new_agent(patch=self.FULL)
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        (host.root / "full").touch()
        host.job(client, 1)
        client.expect("dropped")
        host.open_gate(gate)
        client.result(attempt)
        client.cut()
        again = host.connect()
        assert again.value(attempt) == 0
        (host.root / "full").unlink()
        again.expect("opened")
        host.kill_agent(again)
        assert host.connect().value(attempt) == 0

    @pytest.mark.slow
    def test_a_spool_that_was_moved_away_takes_no_job(self, host):
        """It says so, and delivers what runs."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, do="gate", gate=gate)
        host.started()
        spool = host.spool
        spool.rename(host.root / "elsewhere")
        client.wait(lambda: "moved away" in client.notes(), "the agent to notice")
        refused = host.job(client, 1)
        client.expect("dropped", attempt=refused)
        host.open_gate(gate)
        assert client.expect("final", attempt=attempt).header["envelope"]["status"] == "COMPLETED"
        (host.root / "elsewhere").rename(spool)
        client.expect("opened")
        client.expect("files_end", attempt=attempt)

    @pytest.mark.slow
    def test_too_many_open_files_fail_a_job_by_name(self, new_agent):
        """The agent goes on, and so do jobs that need no more than there is."""
        host = new_agent(patch="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 4096))")
        client = host.connect(hello={"slots": 60})
        gates = [host.gate(f"g{num}") for num in range(60)]
        attempts = [host.job(client, num, do="gate", gate=gate) for num, gate in enumerate(gates)]
        failed = client.expect("final").header
        assert failed["envelope"]["error"]["kind"] == "host"
        assert "Too many open files" in failed["envelope"]["error"]["message"]
        client.send({"t": "cancel", "attempts": attempts})
        for attempt in attempts:
            client.expect("final", attempt=attempt)
        assert client.value(host.job(client, 99)) == 99

    @pytest.mark.slow
    def test_a_zygote_that_hangs_is_replaced(self, new_agent):
        """It is ended; what it has taken and not forked runs with the next one, as does what it has not taken."""
        host = new_agent(
            patch="import remote_agent.agent.zygotes.spare as s, remote_agent.agent.running as j; s._PATIENCE = j.FORK_PATIENCE = 0.5"
        )
        client = host.connect(hello={"slots": 8})
        client.result(host.job(client, 0))
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGSTOP)
        # More than the socket between them holds.
        attempts = [host.job(client, num, filler="x" * 900_000) for num in range(1, 9)]
        assert [client.value(attempt) for attempt in attempts] == list(range(1, 9))
        assert sorted(job.num for job in host.started(9)) == list(range(9))
