"""Jobs of a real agent, from the message with the job to its result."""

from __future__ import annotations

import pytest

from tests.remote_agent.agents import wait_until


class TestJobs:
    """A job from its message to its result."""

    def test_a_job_runs_and_comes_back(self, host):
        """Started, final with the value, files_end, in this order, with the hooks around it. It is forgotten when it
        is acknowledged.
        """
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
    def test_a_job_that_is_sent_twice_runs_once(self, host):
        """A known job changes nothing: while it waits, runs, or has its result."""
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
            pytest.param({"do": "signal", "signal": 11}, "killed", {"signal": 11}, marks=pytest.mark.slow),
            pytest.param({"do": "exit", "code": 3}, "exited", {"exit_code": 3}, marks=pytest.mark.slow),
            pytest.param({"do": "exit", "code": 0}, "exited", {"exit_code": 0}, marks=pytest.mark.slow),
            pytest.param({"do": "exit", "code": 256}, "exited", {"exit_code": 0}, marks=pytest.mark.slow),
            pytest.param({"do": "raise"}, "exception", {"type": "ValueError"}, marks=pytest.mark.slow),
        ],
    )
    def test_a_job_that_dies_is_failed_and_its_end_hooks_fire(self, host, config, kind, fields):
        """The error names what killed the process. `on_job_end` fires with the callback's earlier state, if necessary
        in an epilogue.
        """
        client = host.connect()
        error = client.error(host.job(client, 0, **config))
        assert error["kind"] == kind
        assert {name: error[name] for name in fields} == fields
        assert host.lines("hooks") == ["start c 0", f"end c 0 0 {kind}"]

    @pytest.mark.slow
    def test_a_job_that_dies_in_an_end_hook_keeps_its_outcome(self, new_agent):
        """The value stays, the other callbacks' end hooks fire, and the hook that killed the process is not repeated."""
        host = new_agent(callbacks={"a": (), "b": (("trap", "kill"),)})
        client = host.connect()
        assert client.value(host.job(client, 0, value=7)) == 7
        assert host.lines("hooks") == ["start a 0", "start b 0", "end b 0 0 ", "end a 0 0 "]

    @pytest.mark.slow
    def test_a_job_that_leaves_a_thread_is_killed(self, host):
        """A non-daemon thread keeps the slot only for the shutdown timeout. The result does not change."""
        client = host.connect()
        first = host.job(client, 0, spec={"shutdown_timeout": 0.2}, do="thread")
        second = host.job(client, 1)
        assert client.value(first) == 0
        assert client.value(second) == 1

    @pytest.mark.slow
    def test_a_job_that_sends_nonsense_fails_alone(self, host):
        """Everything that a process sends to the agent is checked. A note says what happened."""
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
        assert "cannot be read" in client.notes()

    @pytest.mark.slow
    def test_jobs_fail_if_the_application_cannot_be_imported(self, host):
        """Every job has the import's error, and the agent goes on."""
        client = host.connect(prepare=False)
        host.prepare(client, sys_path=[str(host.root)])
        first = host.job(client, 0)
        assert client.error(first)["kind"] == "import"
        second = host.job(client, 1)
        assert client.error(second)["kind"] == "import"
        assert client.expect("zygote").header["state"] == "failed"
