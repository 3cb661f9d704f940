"""How a real agent gets the code for its zygotes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import zlib
from typing import ClassVar

import pytest

from remote_agent.agent.spool.code.blobs import AlteredError, BlobStore
from remote_agent.job import STORE_FAILED
from remote_agent.protocol import wire
from tests.remote_agent.agent.test_agent_machine import spec as job_spec
from tests.remote_agent.agents import APP, wait_until
from tests.remote_agent.stepped_agent import SteppedAgent
from tests.specs import zygote_spec


class TestCode:
    """A snapshot of the application's code."""

    FILES: ClassVar = {"app.py": APP.encode(), "pkg/__init__.py": b"", "pkg/data.txt": b"data"}

    def manifest(self) -> tuple[str, bytes, dict[str, bytes]]:
        """The snapshot's name, its manifest, and its contents by name."""
        contents = {hashlib.sha256(data).hexdigest(): data for data in self.FILES.values()}
        files = [[path, 0o644, len(data), hashlib.sha256(data).hexdigest()] for path, data in self.FILES.items()]
        manifest = zlib.compress(json.dumps({"version": 1, "files": files, "links": []}).encode())
        return hashlib.sha256(manifest).hexdigest(), manifest, contents

    def send(self, client, *, wait: bool = True) -> str:
        """Offer the snapshot and send what is missing. Returns the name of its manifest."""
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
    def test_code_is_sent_once(self, host, new_agent):
        """Each run has its own tree, made from what the host already has."""
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
    def test_a_large_tree_goes_to_the_next_run(self, host, new_agent, monkeypatch):
        """The same files, without those that a job left or changed. Nothing is requested, though the cache has lost the contents."""
        files = {**self.FILES, **{f"pkg/module_{number}.py": b"%d" % number for number in range(300)}}
        monkeypatch.setattr(TestCode, "FILES", files)
        client = host.connect(prepare=False)
        name = self.send(client)
        host.prepare(client, code_blob=name, sys_path=["."], cwd="pkg")
        attempt = host.job(client, 0)
        assert client.value(attempt) == 0
        spool = host.spool
        code = spool / "code"
        inode = (code / "pkg" / "module_7.py").stat().st_ino
        (code / "pkg" / "left").write_bytes(b"left")
        client.ack(attempt)
        client.send({"t": "finish"})
        client.wait_over()
        wait_until(lambda: not code.exists(), "the agent to end")
        shutil.rmtree(host.work / "cache" / "blobs")
        other = new_agent(work=host.root / "work")
        again = other.connect(prepare=False)
        again.send({"t": "manifest", "sha256": name})
        assert again.expect("missing").header["sha256"] == []
        other.prepare(again, code_blob=name, sys_path=["."], cwd="pkg")
        assert again.value(other.job(again, 0)) == 0
        code = other.spool / "code"
        assert (code / "pkg" / "module_7.py").stat().st_ino == inode
        assert not (code / "pkg" / "left").exists()

    @pytest.mark.slow
    def test_code_that_was_altered_in_the_cache_is_requested_again(self, host, new_agent):
        """A content that does not match its name is never run."""
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
        assert self.answer(again, {sha: b"data"}) == [sha]
        assert again.value(other.job(again, 0)) == 0
        assert (other.spool / "code" / "pkg" / "data.txt").read_bytes() == b"data"

    @pytest.mark.slow
    @pytest.mark.parametrize("also", ["", "code"])
    def test_deleted_code_does_no_harm(self, host, also):
        """The cache is removed, and then the zygote. The next zygote uses the tree, or the controller sends the code again."""
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
    def test_jobs_fail_if_their_code_never_comes(self, new_agent):
        """It is requested several times. Then the error of the jobs names what is missing."""
        host = new_agent(
            patch="import remote_agent.agent.zygotes.pool as z; z.CONTENT_PATIENCE = z._CHECK_EVERY = 0.05"
        )
        client = host.connect(prepare=False)
        host.prepare(client, code_blob="0" * 64)
        attempt = host.job(client, 0)
        error = client.error(attempt)
        assert error["kind"] == "host"
        assert "the code is missing from" in error["message"]
        assert len(client.all("missing")) == 3

    def test_jobs_fail_if_their_code_cannot_be_sent(self, host):
        """With the controller's reason."""
        client = host.connect(prepare=False)
        host.prepare(client, code_blob="0" * 64)
        attempt = host.job(client, 0)
        client.send({"t": "withheld", "message": "app.py has changed since the run began"})
        assert client.error(attempt)["message"] == "app.py has changed since the run began"

    @pytest.mark.slow
    def test_a_large_payload_comes_before_its_job(self, host):
        """As a blob of the run, which is removed with the job."""
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


class TestADiskThatTakesNoMore:
    """Content that cannot be stored fails what needs it, by name. The link stays, and so do other jobs."""

    @pytest.fixture
    def host(self, monkeypatch):
        """An agent that can store nothing that is sent to it."""

        def put(store, sha256, size, offset, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{store.folder}/{sha256}")

        host = SteppedAgent()
        monkeypatch.setattr(BlobStore, "put_chunk", put)
        yield host
        host.close()

    @staticmethod
    def greet(host, **spec):
        """A controller whose zygote needs what `spec` says."""
        peer = host.connect()
        peer.say({"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h", "slots": 2})
        peer.say({"t": "manifest", "sha256": "b" * 64})
        host.settle()
        peer.say({"t": "prepare", "zygote": "z", "spec": zygote_spec(**spec).to_json()})
        peer.say({"t": "go"})
        return peer

    @pytest.mark.parametrize("is_small", [True, False])
    def test_the_code_is_named_and_its_jobs_run_elsewhere(self, host, is_small):
        """The next controller may find more room, so it is asked for the code again."""
        peer = self.greet(host, code_blob="b" * 64)
        if is_small:
            peer.say({"t": "blobs", "items": [["a" * 64, 4]]}, b"code")
        else:
            peer.say({"t": "blob", "sha256": "a" * 64, "size": 8, "offset": 0}, b"code")
            peer.say({"t": "blob", "sha256": "a" * 64, "size": 8, "offset": 4}, b"code")
        host.settle()
        (told,) = peer.all("zygote")
        assert (told["state"], told["error"]["kind"], told["error"]["type"]) == ("failed", "host", STORE_FAILED)
        assert re.search(r"code: cannot write to /.*: No space left on device", told["error"]["message"])
        assert peer.all("fatal") == []
        assert not peer.is_over
        peer.close()
        again = self.greet(host, code_blob="b" * 64)
        host.settle()
        assert again.all("zygote") == []

    def test_the_callbacks_and_the_task_are_named(self, host):
        """They arrive before the zygote's spec."""
        peer = host.connect()
        peer.say({"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h", "slots": 2})
        peer.say({"t": "blob", "sha256": "c" * 64, "size": 4, "offset": 0, "scope": "run"}, b"task")
        peer.say({"t": "prepare", "zygote": "z", "spec": zygote_spec(shared="c" * 64).to_json()})
        host.settle()
        (told,) = peer.all("zygote")
        assert told["error"]["type"] == STORE_FAILED
        assert "No space left" in told["error"]["message"]

    def test_a_large_config_goes_back_with_its_job(self, host):
        """Jobs whose config is there run."""
        peer = self.greet(host)
        peer.say({"t": "blob", "sha256": "d" * 64, "size": 4, "offset": 0, "scope": "run"}, b"conf")
        peer.say({"t": "job", "spec": job_spec(attempt_id="0.1", num=0), "payload_blob": "d" * 64})
        peer.say({"t": "job", "spec": job_spec(attempt_id="1.1", num=1)}, b"payload")
        host.settle()
        (given,) = peer.all("dropped")
        assert (given["attempt"], given["asked"]) == ("0.1", False)
        assert "No space left" in given["why"]
        assert host.forks == ["1.1"]

    def test_content_that_is_not_what_its_name_says_ends_the_link(self, host, monkeypatch):
        """That is no fault of the disk: the next link brings it again."""

        def put(store, sha256, size, offset, data):
            raise AlteredError("content does not match its name")

        monkeypatch.setattr(BlobStore, "put_chunk", put)
        peer = self.greet(host, code_blob="b" * 64)
        peer.say({"t": "blobs", "items": [["a" * 64, 4]]}, b"code")
        host.settle()
        assert [one["code"] for one in peer.all("fatal")] == ["store"]
        assert peer.all("zygote") == []
