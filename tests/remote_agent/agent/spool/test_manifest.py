"""The manifest of a snapshot: its paths and links stay within the tree, or it is refused."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from remote_agent.agent.spool.manifest import Manifest, read_manifest
from remote_agent.system.private_files import SpoolError


def packed(**content: Any) -> bytes:
    """A manifest as a controller writes it."""
    return zlib.compress(json.dumps({"version": 1, "files": [], "links": [], **content}).encode())


class TestManifest:
    """The list of a snapshot's files."""

    def test_a_manifest_can_be_read(self):
        """Files and links."""
        manifest = read_manifest(
            packed(files=[["a/b", 0o755, 3, "0" * 64]], links=[["a/l", "b"], ["x/y/z", "../../a/b"]])
        )
        assert manifest == Manifest([("a/b", 0o755, 3, "0" * 64)], [("a/l", "b"), ("x/y/z", "../../a/b")])

    @pytest.mark.parametrize("path", ["/abs", "../out", "a/../../out", "a//b", "", ".", "a/.", "nul\0"])
    def test_a_manifest_with_a_path_that_leads_out_is_refused(self, path):
        """As a file and as a link."""
        with pytest.raises(SpoolError, match="names"):
            read_manifest(packed(files=[[path, 0o644, 1, "0" * 64]]))
        with pytest.raises(SpoolError, match="names"):
            read_manifest(packed(links=[[path, "x"]]))

    @pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "../../x"])
    def test_a_manifest_with_a_link_that_leads_out_is_refused(self, target):
        """However it is written."""
        with pytest.raises(SpoolError, match="leads out"):
            read_manifest(packed(links=[["link", target]]))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"not zlib",
            zlib.compress(b"not json"),
            zlib.compress(b"[]"),
            packed(version=2),
            packed(files=[["a"]]),
            packed(files=5),
            packed(files=[["a", "x", 1, "y"]]),
        ],
    )
    def test_an_invalid_manifest_is_refused(self, data):
        """With a typed error."""
        with pytest.raises(SpoolError):
            read_manifest(data)

    def test_a_manifest_that_unpacks_to_too_much_is_refused(self, monkeypatch):
        """A bomb of a few bytes does not fill the memory."""
        monkeypatch.setattr("remote_agent.agent.spool.manifest._MAX_MANIFEST", 1000)
        with pytest.raises(SpoolError, match="over 1000 bytes"):
            read_manifest(zlib.compress(b" " * 100_000))
