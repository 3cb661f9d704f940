"""What uv keeps is used again where it is certainly whole."""

from __future__ import annotations

from pathlib import Path

from remote_agent.agent.environments.store.uv_cache import UvCache

KEY, OTHER = "a" * 64, "b" * 64


def make(folder: Path, boot: str = "now", machine: str = "here") -> UvCache:
    """The cache as one life of a machine sees it."""
    return UvCache(str(folder / "uv"), machine, boot)


def test_one_life_uses_one_cache(tmp_path: Path) -> None:
    """Whoever dies meanwhile: the memory of the machine still has all."""
    assert make(tmp_path).begin(KEY) == make(tmp_path).begin(OTHER)


def test_another_is_begun_after_a_life_that_did_not_bring_it_to_the_disk(tmp_path: Path) -> None:
    """Once; the old one stays, for whoever still reads it."""
    first = make(tmp_path).begin(KEY)
    second = make(tmp_path, "after").begin(OTHER)
    assert second != first
    assert Path(first).is_dir()
    assert make(tmp_path, "after").begin(KEY) == second


def test_what_is_on_the_disk_stays_in_use(tmp_path: Path) -> None:
    """All that was written; one that is not is enough to begin another."""
    cache = make(tmp_path)
    first = cache.begin(KEY)
    cache.synced(KEY)
    cache.synced(KEY)
    assert make(tmp_path, "after").begin(KEY) == first
    assert make(tmp_path, "last").begin(KEY) != first


def test_other_machines_have_notes_of_their_own(tmp_path: Path) -> None:
    """What they write comes over a network, and their memory is not ours."""
    first = make(tmp_path).begin(KEY)
    assert make(tmp_path, "then", "there").begin(KEY) == first
    assert make(tmp_path).begin(KEY) == first


def test_a_name_that_is_none_counts_as_the_first(tmp_path: Path) -> None:
    """The file may have been cut short, too."""
    first = make(tmp_path).begin(KEY)
    for text in ("", "../../x", "\udcff"):
        (tmp_path / "uv" / "current").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert make(tmp_path).begin(KEY) == first
