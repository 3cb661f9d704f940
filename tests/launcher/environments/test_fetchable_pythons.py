"""Which Pythons uv can fetch for a host."""

from __future__ import annotations

import pytest

from launcher.environments import fetchable_pythons as module
from launcher.environments.fetchable_pythons import fetchable_pythons
from launcher.environments.uv import Steps
from launcher.errors import PackagesError
from remote_agent.protocol.specs.environment import HostFacts

HOST = HostFacts("Linux", "x86_64", "6.1", "glibc 2.36", "", 0, [])


@pytest.mark.parametrize(
    ("facts", "ending"),
    [
        (HOST, "-linux-x86_64-gnu"),
        (HOST._replace(libc="musl 1.2"), "-linux-x86_64-musl"),
        (HOST._replace(machine="aarch64"), "-linux-aarch64-gnu"),
        (HOST._replace(system="Darwin", machine="arm64", libc="macos 14.1"), "-macos-aarch64-none"),
    ],
)
def test_uv_knows_some_for_each_platform(facts: HostFacts, ending: str) -> None:
    """Released versions of CPython, with a GIL; and from where they come."""
    found = fetchable_pythons(facts, Steps())
    assert {one.abi for one, _ in found} >= {"cp310", "cp311", "cp312", "cp313"}
    for one, url in found:
        assert one.path == f"uv:cpython-{one.version}{ending}"
        assert url.startswith("https://")


def test_a_platform_that_uv_does_not_know() -> None:
    """There is none."""
    assert fetchable_pythons(HOST._replace(machine="vax", libc=""), Steps()) == []


@pytest.mark.parametrize("said", ["", "{}x", '[{"key": 1}]', "[3]"])
def test_what_is_no_list(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of ours, and not a defect."""
    monkeypatch.setattr(module, "run_uv", lambda *given, **named: said)
    with pytest.raises(PackagesError, match="cannot be read"):
        fetchable_pythons(HOST, Steps())
