"""What throwaway clusters have of this machine."""

from __future__ import annotations

import os
import socket

import pytest

from tests.hosts.slurm import ports_in_a_row


def test_two_clusters_never_have_the_same_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before they listen, and whichever processes start them. A port that something else has is left out."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with ports_in_a_row() as one, ports_in_a_row() as other:
        assert abs(one - other) >= 8
    with socket.socket() as taken:
        taken.bind(("", one + 1))
        with ports_in_a_row() as third:
            assert third != one
    with ports_in_a_row() as again:
        assert again == one
