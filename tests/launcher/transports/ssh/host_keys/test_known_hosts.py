"""known_hosts files: `launcher.transports.ssh.host_keys.known_hosts` agrees with OpenSSH's own tools about each line."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.hosts.fields import is_fingerprint
from launcher.transports.ssh.host_keys.known_hosts import KnownHosts, Verdict, add, fingerprint, host_name, line
from tests.requirements import need_programs

KEY = b"\x00\x00\x00\x0bssh-ed25519" + b"\x01" * 36
OTHER = b"\x00\x00\x00\x0bssh-ed25519" + b"\x02" * 36
ECDSA = b"\x00\x00\x00\x13ecdsa-sha2-nistp256" + b"\x03" * 36


def known(*lines: str) -> KnownHosts:
    """Put the lines into a file, and load it."""
    return KnownHosts((f"file:{number}", text) for number, text in enumerate(lines, 1))


def entry(patterns: str, key: bytes = KEY, marker: str = "") -> str:
    """Make one line."""
    kind = "ecdsa-sha2-nistp256" if key is ECDSA else "ssh-ed25519"
    return f"{marker}{' ' if marker else ''}{patterns} {kind} {base64.b64encode(key).decode()}"


class TestFind:
    """Which lines are about a host."""

    @pytest.mark.parametrize(
        ("patterns", "name", "is_match"),
        [
            ("gpu1", "gpu1", True),
            ("gpu1", "gpu10", False),
            ("GPU1", "gpu1", True),
            ("gpu1", "GPU1", True),
            ("a,gpu1,b", "gpu1", True),
            ("gpu*", "gpu12", True),
            ("gpu?", "gpu12", False),
            ("*.example.org,!gpu1.example.org", "gpu1.example.org", False),
            ("!gpu1.example.org,*.example.org", "gpu1.example.org", False),
            ("*.example.org,!gpu1.example.org", "gpu2.example.org", True),
            ("!gpu1", "gpu2", False),
            ("[gpu1]:2222", "[gpu1]:2222", True),
            ("[gpu1]:2222", "g", False),
            ("gpu1", "[gpu1]:2222", False),
            ("[*]:2222", "[gpu1]:2222", True),
            ("192.168.0.*", "192.168.0.7", True),
            ("::1", "::1", True),
            ("[::1]:22022", "[::1]:22022", True),
            ("a.b", "axb", False),
            ("*" * 40 + "x", "a" * 200, False),
        ],
    )
    def test_matches_patterns_as_openssh_does(self, patterns: str, name: str, is_match: bool) -> None:
        """This covers lists, wildcards, negation, brackets as letters, and upper and lower case."""
        assert bool(known(entry(patterns)).find(name)) is is_match

    def test_matches_hashed_names(self, tmp_path: Path) -> None:
        """A line that ssh-keygen -H has hashed is found by its name, and by no other."""
        need_programs("ssh-keygen")
        file = tmp_path / "known_hosts"
        file.write_text(f"{entry('gpu1')}\n{entry('[gpu2]:2222', OTHER)}\n")
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
        assert "gpu1" not in file.read_text()
        loaded = KnownHosts.load([str(file)])
        assert [one.key for one in loaded.find("gpu1")] == [KEY]
        assert [one.key for one in loaded.find("[gpu2]:2222")] == [OTHER]
        assert loaded.find("gpu3") == []

    @pytest.mark.parametrize(
        "text", ["gpu1  ssh-ed25519   {}", "gpu1\tssh-ed25519\t{} a comment", " gpu1 ssh-ed25519 {}\r"]
    )
    def test_takes_any_white_space(self, text: str) -> None:
        """Double spaces, tabs, comments and carriage returns are accepted. Paramiko's reader fails on some of them."""
        assert [one.key for one in known(text.format(base64.b64encode(KEY).decode())).find("gpu1")] == [KEY]

    def test_skips_invalid_lines(self) -> None:
        """Only the broken line is skipped, and it is named."""
        loaded = known(
            "gpu1", "@unknown gpu1 ssh-ed25519 AAAA", "gpu1 ssh-ed25519 not*base64", "", "# note", entry("gpu1")
        )
        assert [one.where for one in loaded.find("gpu1")] == ["file:6"]
        assert loaded.unreadable == ["file:1", "file:2", "file:3"]

    def test_reads_several_files_in_order(self, tmp_path: Path) -> None:
        """Missing files count as empty. Each line knows its file and number."""
        first, second = tmp_path / "a", tmp_path / "b"
        first.write_text(entry("gpu1") + "\n")
        second.write_text("# nothing\n" + entry("gpu1", OTHER))
        loaded = KnownHosts.load([str(first), str(tmp_path / "none"), str(second)])
        assert [(one.key, one.where) for one in loaded.find("gpu1")] == [(KEY, f"{first}:1"), (OTHER, f"{second}:2")]

    def test_names_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """A folder in place of a file is reported, and nothing is raised."""
        assert "Is a directory" in KnownHosts.load([str(tmp_path)]).unreadable[0]

    @given(st.lists(st.binary(max_size=60)))
    def test_survives_any_bytes(self, lines: list[bytes]) -> None:
        """No content makes it raise."""
        texts = [text.decode("utf-8", "surrogateescape") for text in lines]
        known(*texts).judge(["gpu1", "\udcff"], KEY)


class TestJudge:
    """The verdict on the key that a host shows."""

    def test_the_known_key_is_accepted(self) -> None:
        """This is the usual case."""
        assert known(entry("gpu1")).judge(["gpu1"], KEY)[0] is Verdict.KNOWN

    def test_a_new_host_is_unknown(self) -> None:
        """Lines about other hosts do not matter."""
        assert known(entry("gpu2")).judge(["gpu1"], KEY) == (Verdict.UNKNOWN, [])

    def test_a_changed_key_names_the_line_that_it_contradicts(self) -> None:
        """The message needs the old fingerprint and the place of its line."""
        verdict, lines = known(entry("gpu2"), entry("gpu1", OTHER)).judge(["gpu1"], KEY)
        assert verdict is Verdict.CHANGED
        assert [(one.key, one.where) for one in lines] == [(OTHER, "file:2")]

    def test_any_of_several_known_keys_is_accepted(self) -> None:
        """The old and the new key may both be listed, as during a replacement."""
        assert known(entry("gpu1", OTHER), entry("gpu1")).judge(["gpu1"], KEY)[0] is Verdict.KNOWN

    def test_another_type_of_key_is_a_change(self) -> None:
        """This is stricter than OpenSSH, which would call it new and offer to add it."""
        assert known(entry("gpu1", ECDSA)).judge(["gpu1"], KEY)[0] is Verdict.CHANGED

    def test_a_revoked_key_is_refused_even_if_it_is_known(self) -> None:
        """@revoked counts wherever its line is."""
        loaded = known(entry("gpu1"), entry("*", KEY, "@revoked"))
        assert loaded.judge(["gpu1"], KEY)[0] is Verdict.REVOKED
        assert loaded.judge(["gpu1"], OTHER)[0] is Verdict.CHANGED

    def test_a_certificate_authority_is_named(self) -> None:
        """An authority vouches for certificates, and not for this key."""
        loaded = known(entry("*.example.org", OTHER, "@cert-authority"))
        assert loaded.judge(["gpu1.example.org"], KEY)[0] is Verdict.AUTHORITY
        assert loaded.judge(["gpu1.example.org"], OTHER)[0] is Verdict.AUTHORITY

    def test_a_plain_line_beside_an_authority_counts(self) -> None:
        """OpenSSH does the same if a host shows no certificate."""
        loaded = known(entry("*", OTHER, "@cert-authority"), entry("gpu1"))
        assert loaded.judge(["gpu1"], KEY)[0] is Verdict.KNOWN

    def test_a_key_known_without_the_port_is_accepted(self) -> None:
        """As in OpenSSH. A different key without the port is no contradiction."""
        names = ["[gpu1]:2222", "gpu1"]
        assert known(entry("gpu1")).judge(names, KEY)[0] is Verdict.KNOWN
        assert known(entry("gpu1", OTHER)).judge(names, KEY)[0] is Verdict.UNKNOWN

    def test_the_types_to_ask_for_are_those_of_known_keys(self) -> None:
        """They are in the file's order, without revoked keys and authorities."""
        loaded = known(entry("gpu1", ECDSA), entry("gpu1"), entry("gpu1", OTHER, "@revoked"), entry("other"))
        assert loaded.types(["gpu1"]) == ["ecdsa-sha2-nistp256", "ssh-ed25519"]


def test_fingerprints_as_ssh_keygen_does(tmp_path: Path) -> None:
    """They are SHA256 without padding."""
    need_programs("ssh-keygen")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    public = (tmp_path / "key.pub").read_text().split()
    shown = subprocess.run(["ssh-keygen", "-lf", str(tmp_path / "key.pub")], check=True, capture_output=True, text=True)
    assert fingerprint(base64.b64decode(public[1])) == shown.stdout.split()[1]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (fingerprint(KEY), True),
        ("SHA256:short", False),
        ("MD5:" + ":".join(["00"] * 16), False),
        (fingerprint(KEY) + "=", False),
        (hashlib.sha256(KEY).hexdigest(), False),
    ],
)
def test_recognises_a_fingerprint(text: str, is_one: bool) -> None:
    """MD5 and hex are not fingerprints any more."""
    assert is_fingerprint(text) is is_one


class TestAdd:
    """Making a key known."""

    def test_makes_file_and_folder_private(self, tmp_path: Path) -> None:
        """The modes are 0600 and 0700, and the line is found again."""
        file = tmp_path / ".ssh" / "known_hosts"
        add(str(file), line(host_name("GPU1", 2222), "ssh-ed25519", KEY))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert KnownHosts.load([str(file)]).judge(["[gpu1]:2222"], KEY)[0] is Verdict.KNOWN

    def test_keeps_a_last_line_without_newline_whole(self, tmp_path: Path) -> None:
        """Appending must not join two lines."""
        file = tmp_path / "known_hosts"
        file.write_text(entry("gpu2", OTHER))
        os.chmod(file, 0o600)
        add(str(file), entry("gpu1"))
        loaded = KnownHosts.load([str(file)])
        assert loaded.judge(["gpu2"], OTHER)[0] is Verdict.KNOWN
        assert loaded.judge(["gpu1"], KEY)[0] is Verdict.KNOWN
