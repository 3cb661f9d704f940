"""What an agent sends: small messages first, long ones in turn, and nothing over a cap."""

from __future__ import annotations

import errno
import itertools
import os
import select
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_agent.agent.link.outbox import OpenFile, Outbox, Slice
from remote_agent.protocol import wire
from tests.examples import examples
from tests.remote_agent.agent.link.frames import joined


class TestOutbox:
    """Bytes on their way to a descriptor."""

    def drain(self, outbox: Outbox) -> bytes:
        """Everything that it writes, to a reader that reads little at a time."""
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        out = bytearray()
        try:
            while outbox:
                outbox.write_to(theirs)
                while select.select([ours], [], [], 0)[0]:
                    out += os.read(ours, 1000)
        finally:
            os.close(ours)
            os.close(theirs)
        return bytes(out)

    def test_a_source_that_pauses_makes_no_other_one_wait(self):
        """It goes on at the next turn. Others have theirs meanwhile."""
        outbox, turns = Outbox(), []

        def works(name: str, pauses: int) -> Iterator[bytes]:
            for turn in range(pauses):
                turns.append((name, turn))
                yield b""
            yield name.encode()

        outbox.add_source(works("a", 3))
        outbox.add_source(works("b", 1))
        outbox.fill()
        assert turns == [("a", 0)]
        assert outbox
        assert outbox.size == 0
        outbox.fill()
        assert turns == [("a", 0), ("b", 0)]
        assert self.drain(outbox) == b"ba"

    @settings(max_examples=examples(40), deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=3000), max_size=20),
        st.lists(
            st.lists(
                st.binary(min_size=1, max_size=90_000)
                | st.tuples(st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=90_000)),
                max_size=5,
            ),
            max_size=8,
        ),
    )
    def test_nothing_is_lost_or_cut(self, small, sources):
        """However much there is, and however little the reader reads."""
        outbox = Outbox()
        for piece in small:
            outbox.put(piece)
        for source in sources:
            outbox.add_source(iter(source))
        out = self.drain(outbox)
        assert out.startswith(b"".join(small))
        assert len(out) == sum(map(len, small)) + sum(len(joined(piece)) for source in sources for piece in source)
        assert all(joined(piece) in out for source in sources for piece in source)

    def test_a_file_is_sent_by_the_kernel(self, tmp_path):
        """In order with the rest, however little the reader reads. It stays open until its last byte is written."""
        data = bytes(range(256)) * 4000
        (tmp_path / "file").write_bytes(data)
        file = OpenFile(str(tmp_path / "file"))
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(file, 0, 500_000)), (b"more", Slice(file, 500_000, 524_000)), b"end"]))
        fd = file.fd
        del file
        outbox.fill()
        os.fstat(fd)
        assert self.drain(outbox) == b"head" + data[:500_000] + b"more" + data[500_000:] + b"end"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    @pytest.mark.parametrize("how", ["shorter", "unreadable", "not by the kernel"])
    def test_a_file_that_the_kernel_cannot_send_is_read(self, tmp_path, monkeypatch, how):
        """If it cannot be read either, zeros are sent for the announced bytes, and the digest shows that."""
        (tmp_path / "file").write_bytes(b"x" * 400_000)
        file = OpenFile(str(tmp_path / "file"))
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(file, 0, 400_000)), b"end"]))
        expected = {
            "shorter": b"x" * 10 + bytes(399_990),
            "unreadable": bytes(400_000),
            "not by the kernel": b"x" * 400_000,
        }[how]

        def refuse(*arguments):
            raise OSError(errno.EINVAL, "Invalid argument")

        if how == "shorter":
            os.truncate(tmp_path / "file", 10)
        else:
            monkeypatch.setattr("remote_agent.agent.link.outbox.os.sendfile", refuse)
        if how == "unreadable":
            monkeypatch.setattr("remote_agent.agent.link.outbox.os.pread", refuse)
        assert self.drain(outbox) == b"head" + expected + b"end"

    def test_a_dead_reader_ends_the_sending_of_a_file(self, tmp_path):
        """As with any other bytes."""
        (tmp_path / "file").write_bytes(b"x" * 400_000)
        outbox = Outbox()
        outbox.add_source(iter([(b"head", Slice(OpenFile(str(tmp_path / "file")), 0, 400_000))]))
        ours, theirs = os.pipe()
        os.close(ours)
        with pytest.raises(BrokenPipeError):
            outbox.write_to(theirs)
        os.close(theirs)

    def test_small_frames_are_sent_before_those_of_sources(self):
        """A pong does not wait for a gigabyte."""
        outbox = Outbox()
        outbox.add_source(iter([b"x" * 300_000] * 10))
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        outbox.write_to(theirs)
        outbox.put(b"pong")
        os.close(theirs)
        out = os.read(ours, 1 << 20) + self.drain(outbox)
        os.close(ours)
        assert out.index(b"pong") < 1 << 20

    def test_few_sources_are_open_at_once_and_none_before_its_turn(self):
        """Ten thousand waiting results cost no descriptor. Those that are read take turns."""
        opened: list[int] = []

        def source(number: int) -> Iterator[bytes]:
            opened.append(number)
            for _ in range(3):
                yield b"%05d" % number * 40_000

        outbox = Outbox()
        for number in range(10_000):
            outbox.add_source(source(number))
        outbox.fill()
        assert opened == [0, 1, 2]
        assert outbox

    def test_a_reader_that_reads_nothing_costs_a_few_chunks(self):
        """No more is read from the sources."""
        taken = itertools.count()
        outbox = Outbox()
        outbox.add_source(b"x" * wire.CHUNK for _ in taken)
        _, theirs = pipe = os.pipe()
        os.set_blocking(theirs, False)
        for _ in range(100):
            outbox.write_to(theirs)
        for fd in pipe:
            os.close(fd)
        assert next(taken) < 6

    def test_a_dead_reader_is_an_error(self):
        """The link ends then."""
        ours, theirs = os.pipe()
        os.close(ours)
        outbox = Outbox()
        outbox.put(b"x")
        with pytest.raises(BrokenPipeError):
            outbox.write_to(theirs)
        os.close(theirs)
