"""The part of a value that cannot be pickled is found and named."""

from __future__ import annotations

import functools
import os
import socket
import threading

import pytest

from launcher.errors import CodeError
from launcher.serialization.pickler import dumps
from tests.launcher.serialization.holders import Holder, Raises


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.slow
def test_the_part_at_fault_is_named(tmp_path):
    """It is found through attributes, containers, closures and partials."""
    lock = threading.Lock()
    with socket.socket() as sock, (tmp_path / "log.txt").open("w") as writing, open(__file__) as reading:
        cases = [
            (Holder(client=Holder(pool=[1, {"k": lock}])), "client.pool[1]['k'] is a lock"),
            (Holder(a=1, sock=sock), "sock is a socket"),
            (Holder(log=writing), f"log is an open file ({tmp_path}/log.txt)"),
            ({"r": reading}, "['r'] is an open file"),
            (Holder(g=(one for one in [1])), "g is a generator"),
            (functools.partial(os.path.join, lock), ".args[0] is a lock".lstrip(".")),
            (lambda: lock, "<variable lock> is a lock"),
            (Holder(x=Raises(ValueError("mine"))), "x is a "),
            (Holder(x=Raises(SystemExit(3))), "x is a "),
            (Holder(event=threading.Event()), "event"),
            (nested(100_000), "nested too deeply"),
        ]
        for value, says in cases:
            with pytest.raises(CodeError) as caught:
                dumps(value)
            assert says in str(caught.value)
