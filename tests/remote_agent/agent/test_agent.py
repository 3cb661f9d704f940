"""A real agent: how jobs and runs end, and the effects of a broken host."""

from __future__ import annotations

import os
import signal

import pytest

from tests.remote_agent.agents import wait_gone, wait_until


class TestEnding:
    """Cancel, timeout, lease, finish."""

    @pytest.mark.slow
    def test_a_cancel_is_recorded_before_the_signal(self, host):
        """The job's error has the recorded kind, and its end hooks fire."""
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
    def test_a_job_that_ignores_sigterm_is_killed(self, host):
        """SIGTERM, the grace period, SIGKILL. The error has the recorded kind, and an epilogue fires the end hooks."""
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
    def test_a_job_over_its_timeout_fails(self, host):
        """Its error has the kind `timeout` and the time that it had."""
        gate = host.gate("g")
        client = host.connect()
        attempt = host.job(client, 0, spec={"timeout": 0.3}, do="gate", gate=gate)
        error = client.error(attempt)
        assert error["kind"] == "timeout"
        assert "0.3" in error["message"]

    @pytest.mark.slow
    def test_a_waiting_job_is_cancelled_without_a_start(self, host):
        """It never runs: no hook, no process. The message is the given one."""
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
        """No process and no spool: neither running jobs, nor processes that escaped into their own session."""
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
        wait_until(lambda: host.processes() == [], "the zygote to end, too")

    @pytest.mark.slow
    def test_finish_may_keep_the_spool(self, host):
        """With `keep`, a later connection can fetch what is not acknowledged."""
        client = host.connect()
        agent = host.agent_pid(client)
        client.result(host.job(client, 0, value="kept"))
        client.send({"t": "finish", "keep": True})
        wait_gone(agent)
        assert host.connect().value("0.1") == "kept"

    @pytest.mark.slow
    def test_a_lease_ends_the_jobs_of_a_controller_that_is_gone(self, host):
        """After the lease, running and waiting jobs are cancelled. Their results wait for the next controller."""
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
        """A lost link changes nothing: the queue goes on, and the results wait."""
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
        """Without a controller and without work it ends, and its spool stays for the next one."""
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
        """The agent says so. Running jobs deliver their results from memory. When there is room again, it takes jobs."""
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
        """It survives a lost link. When there is room, it is on the disk like any other."""
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
        """The agent says so, and delivers the results of running jobs."""
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
    def test_too_many_open_files_fail_a_job_with_a_clear_error(self, new_agent):
        """The agent goes on, and so do jobs that need fewer files."""
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
        """It is killed. Jobs that it has not forked, taken or not, run with the next one."""
        host = new_agent(
            patch="import remote_agent.agent.zygotes.spare as s, remote_agent.agent.jobs.running as j; s._PATIENCE = j.FORK_PATIENCE = 0.5"
        )
        client = host.connect(hello={"slots": 8})
        client.result(host.job(client, 0))
        (zygote,) = host.zygote_pids()
        os.kill(zygote, signal.SIGSTOP)
        # More than the socket between them holds.
        attempts = [host.job(client, num, filler="x" * 900_000) for num in range(1, 9)]
        assert [client.value(attempt) for attempt in attempts] == list(range(1, 9))
        assert sorted(job.num for job in host.started(9)) == list(range(9))
