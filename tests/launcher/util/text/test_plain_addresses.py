"""Which addresses may be shown to anybody."""

from __future__ import annotations

import pytest

from launcher.util.text.plain_addresses import plain_address


@pytest.mark.parametrize(
    "url",
    ["https://packages.example.org", "https://packages.example.org:8443/a/b.whl", "http://127.0.0.1:80/a", "http://[::1]/a"],
)  # fmt: skip
def test_a_plain_address(url: str) -> None:
    """TLS, or the loopback of whoever asks."""
    parts = plain_address(url)
    assert parts is not None
    assert parts.geturl() == url


def test_a_fragment_is_left_out() -> None:
    """It is for whoever asks alone."""
    parts = plain_address("https://packages.example.org/a.whl#sha256=5")
    assert parts is not None
    assert parts.geturl() == "https://packages.example.org/a.whl"


@pytest.mark.parametrize(
    "url",
    ["", "packages.example.org", "http://packages.example.org/", "file:///a", "git+https://packages.example.org/a",
     "https://token@packages.example.org/", "https://a:b@packages.example.org/", "https://packages.example.org/?token=5",
     "https://packages.example.org/a/../b", "https://packages.example.org/a/%2e%2e/b", "https://[x/", "https://",
     "https://packages.example.org:99999/", "https://packages.example.org/a b", "https://packages.example.org/\n"],
)  # fmt: skip
def test_other_addresses(url: str) -> None:
    """Something in them may be secret, or leads elsewhere."""
    assert plain_address(url) is None
