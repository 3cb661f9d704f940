"""What a real agent does after the death of a job, a zygote, the agent itself or the host."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest

from tests.remote_agent.agents import SLOW_DISK, AgentHost, Client, wait_gone, wait_until


@pytest.mark.slow
class TestRecovery:
    """The agent, the zygote, or both die."""

    def test_a_job_outlives_its_agent(self, host):
        """The next agent finds it running, and takes its result. It ran once, and its hooks fired once."""
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
        """What it wrote to its orphan file is its result."""
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
        """The agent dies before it has written it. The job has kept it, and the next agent takes it from there."""
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
        """Its result comes from the orphan file while one of its threads still runs, and the job is then killed."""
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
    def test_the_end_hooks_of_a_job_that_dies_without_an_agent_fire(self, host):
        """The next agent's zygote fires the missing hooks, and the error says what can be known."""
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
        """Its end does not show on its socket, because a process that the import forked holds that, too."""
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
        """It was handed over, and no process had it. It runs once, and does not fail because its zygote died."""
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

    def test_a_job_that_began_and_died_with_its_zygote_does_not_start_again(self, new_agent):
        """It has left a sign that it began, so what it did is not done twice."""
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
    def test_the_end_hooks_of_a_job_whose_zygote_died_first_fire(self, host):
        """Its death is found by its pid. The next zygote runs the epilogue."""
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
    def test_waiting_jobs_of_an_earlier_agent_start_only_after_go(self, host):
        """Jobs that were given up in the meantime are cancelled first."""
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
    def test_a_running_job_keeps_its_slot_under_the_next_agent(self, host):
        """The next agent does not start another job in its slot."""
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
        """The next agent ends the job that the last one was about to end, with the same kind of error."""
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
        """All processes are gone at once, and the next agent finds another boot id."""
        for pid in [*host.processes(), *(job.pid for job in host.started())]:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        client.wait_over()
        host.patch = self.REBOOTED

    @pytest.mark.slow
    def test_a_power_cut_loses_running_and_claimed_jobs(self, host):
        """Nobody can know whether a claimed job has started, so it does not start again."""
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
    def test_a_power_cut_loses_only_running_jobs_if_jobs_are_long(self, new_agent):
        """A claim that found no slot is released, so that waiting jobs are known to wait."""
        host = new_agent(patch="import remote_agent.agent.jobs.queue as queue; queue._LONG = 3.0", callbacks={"c": ()})
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
    def test_a_large_result_is_checked_after_a_power_cut(self, host, is_lost):
        """If its file is complete, it is the result. If not, nobody knows what it was."""
        host.patch = SLOW_DISK.format(str(host.code / host.gate("disk")))
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
        "\nimport remote_agent.agent.spool.file_checks as checks"
        "\nreal, gates = checks._is_whole, [{!r}]"
        "\nchecks._is_whole = lambda *args: (gates and open(gates.pop()).read()) and False or real(*args)"
    )

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_after_a_restart_it_answers_before_it_has_read_long_results(self, host, is_lost):
        """Waiting jobs start, and queries are answered. A result is sent when it was read, and only if it is complete."""
        host.patch = SLOW_DISK.format(str(host.code / host.gate("disk")))
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
    def test_an_outcome_is_checked_before_it_counts(self, new_agent, is_lost):
        """The host went down in an end hook. The outcome of the job counts only if all of it is there."""
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

    def test_the_end_of_a_run_does_not_wait_for_the_check_of_a_result(self, host):
        """Nobody needs that result any more."""
        host.patch = SLOW_DISK.format(str(host.code / host.gate("disk")))
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        wait_until(lambda: {"r": "final", "a": attempt} in self._said(host), "the log to have the result")
        self._power_cut(host, client)
        host.patch += (
            "\nimport remote_agent.agent.spool.file_checks as checks"
            "\ndef endless(parts, goes_on):"
            "\n    open({!r}, 'w').close()"
            "\n    while goes_on(): pass"
            "\nchecks._is_whole = endless"
        ).format(str(host.code / "reading"))
        again = host.connect()
        wait_until((host.code / "reading").exists, "the result to be read")
        spool = host.spool
        again.send({"t": "finish", "keep": False})
        again.wait_over()
        wait_until(lambda: not spool.exists(), "the spool to be gone")

    @pytest.mark.slow
    def test_a_released_claim_is_made_again(self, new_agent):
        """With the next slot, and on the disk before the job starts."""
        host = new_agent(patch="import remote_agent.agent.jobs.queue as queue; queue._LONG = 1.5")
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
        """The records of the log, with their attempts."""
        return [{name: line[name] for name in ("r", "a")} for line in host.log_lines()]

    def test_a_torn_tail_of_the_log_is_cut_off(self, host):
        """What was complete before it is known. The rest is kept aside."""
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

    def test_a_damaged_record_loses_only_what_it_said(self, host):
        """Results before and after it are delivered. A job that may have started does not start again."""
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
        assert "damaged" in again.notes()
        assert again.expect("welcome").header["boot_id"] != boot
        assert len(host.started(3)) == 3

    @staticmethod
    def _alter(host: AgentHost, attempt: str) -> None:
        """Flip a bit in the record with which an attempt was claimed."""
        log = host.spool / "log"
        data = bytearray(log.read_bytes())
        at = data.index(b'"r":"claimed","a":"%s"' % attempt.encode())
        data[at + 3] ^= 1
        log.write_bytes(data)

    def test_a_spool_of_another_version_is_refused_by_name(self, host):
        """Nothing is changed, and the message has the version that was found."""
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
        """It has what is needed, under the same id, and the next agent can read it."""
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
