"""What a real agent sends of its jobs: their output, their results and their files."""

from __future__ import annotations

import os

import pytest

from tests.remote_agent.agents import SLOW_DISK, AgentHost, Client, wait_until


@pytest.mark.slow
class TestOutput:
    """The output and the files of jobs."""

    def test_binary_output_arrives_byte_for_byte(self, host):
        """Every byte value, in more than one chunk."""
        client = host.connect()
        attempt = host.job(client, 0, do="print", blocks=9)
        client.result(attempt)
        assert client.stream(attempt) == bytes(range(256)) * 256 * 9

    def test_endless_output_is_capped_with_a_mark(self, host):
        """It is unchanged up to the cap, then comes the mark. The sizes say what is missing."""
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

    def test_live_output_is_sent_for_every_running_job(self, host):
        """Not only for the first one."""
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
        """Small ones share a frame, large ones come in chunks. Files that cannot be sent are named."""
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

    def test_a_large_result_is_sent_in_chunks(self, host):
        """If it is over a mebibyte, it has its own file until it is acknowledged."""
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        assert client.value(attempt) == bytes(3 << 20)
        file = host.spool / "payload" / f"{attempt}.result"
        assert file.exists()
        client.ack(attempt)
        wait_until(lambda: not file.exists(), "the result's file to go")

    def test_a_result_that_was_truncated_is_no_success(self, host):
        """Its job is FAILED with the reason. The link and the other jobs go on."""
        client = host.connect()
        attempt = host.job(client, 0, do="large", size=3 << 20)
        client.result(attempt)
        os.truncate(host.spool / "payload" / f"{attempt}.result", 1 << 20)
        again = host.connect()
        error = again.error(attempt)
        assert error["kind"] == "host"
        assert "can no longer be read" in error["message"]
        assert again.value(host.job(again, 1)) == 1

    def _sent_ahead(self, host: AgentHost, gate: str) -> tuple[Client, str]:
        """A link that has all bytes of a result that is not yet on the disk."""
        host.patch = SLOW_DISK.format(str(host.code / gate))
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

    def test_a_large_result_is_final_when_it_is_on_the_disk(self, host):
        """Its bytes are sent meanwhile, once. The message that makes them a result comes after them."""
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
        """All of it, because the new link has nothing of it."""
        gate = host.gate("disk")
        client, attempt = self._sent_ahead(host, gate)
        client.cut()
        again = host.connect(prepare=False)
        host.open_gate(gate)
        assert again.value(attempt) == bytes(3 << 20)

    def test_a_disk_error_with_a_large_result_is_reported(self, host):
        """The content of the file is delivered. Nothing more starts until the log can be written again."""
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
