"""Hosts as they are named: what can be meant is understood, what cannot is refused with place and reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from launcher.errors import InventoryError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import host_specs, load_hosts, load_hosts_file, parse_host
from launcher.options import LaunchConf
from launcher.transports.chosen import ChosenTransport
from launcher.transports.factory import make_transport
from launcher.transports.local import LocalTransport

PIN = "SHA256:" + "a" * 43


class TestParseHost:
    """`[user@]host[:port][/slots]`."""

    @pytest.mark.parametrize(
        ("text", "spec"),
        [
            ("gpu1", HostSpec("gpu1", "gpu1")),
            ("gpu-1.example.org", HostSpec("gpu-1.example.org", "gpu-1.example.org")),
            ("user@gpu2:2222/4", HostSpec("gpu2:2222", "gpu2", user="user", port=2222, slots=4)),
            ("user@gpu2", HostSpec("gpu2", "gpu2", user="user")),
            ("first.last@corp.example@gpu2", HostSpec("gpu2", "gpu2", user="first.last@corp.example")),
            ("[::1]:22/2", HostSpec("[::1]:22", "::1", port=22, slots=2)),
            ("[::1]", HostSpec("::1", "::1")),
            ("::1", HostSpec("::1", "::1")),
            ("fe80::1%eth0/1", HostSpec("fe80::1%eth0", "fe80::1%eth0", slots=1)),
            ("10.0.0.7:22", HostSpec("10.0.0.7:22", "10.0.0.7", port=22)),
            ("gpu1/auto", HostSpec("gpu1", "gpu1", slots="auto")),
            ("localhost", HostSpec("localhost", "localhost")),
            ("my_alias", HostSpec("my_alias", "my_alias")),
            ("slurm://me@login:22", HostSpec("login:22", "login", user="me", port=22, slurm={})),
        ],
    )
    def test_understands(self, text: str, spec: HostSpec) -> None:
        """Every form that the help names."""
        assert parse_host(text) == spec

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "not a host name"),
            ("-oProxyCommand=touch x", "not a host name"),
            ("user@-oProxyCommand", "not a host name"),
            ("gpu1;reboot", "not a host name"),
            ("gpu1 gpu2", "not a host name"),
            ("$(reboot)", "not a host name"),
            ("gpu1`id`", "not a host name"),
            ("gpü1", "not a host name"),
            ("a\nb", "not a host name"),
            ("user:secret@gpu1", "'user:\\*\\*\\*@gpu1': .*password; write user@host"),
            ("-l@gpu1", "not a user name"),
            ("us er@gpu1", "not a user name"),
            ("@gpu1", "not a user name"),
            ("gpu1:0", "1 to 65535"),
            ("gpu1:65536", "1 to 65535"),
            ("gpu1:ssh", "1 to 65535"),
            ("gpu1:", "1 to 65535"),
            ("gpu1:22:23", "not a host name"),
            ("gpu1/0", "slots"),
            ("gpu1/-1", "slots"),
            ("gpu1/many", "slots"),
            ("gpu1/1.5", "slots"),
            ("gpu1/", "slots"),
            ("gpu1/1/2", "slots"),
            ("gpu1/99999999999999", "slots"),
            ("[::1", "IPv6"),
            ("[::1]22", "IPv6"),
            ("[::1]:", "IPv6"),
            ("local:22", "localhost"),
            ("me@local", "localhost"),
            ("slurm://login/4", "has no slots.*slurm://LOGIN.*allocations: N"),
        ],
    )
    def test_refuses(self, text: str, says: str) -> None:
        """With the argument and what is allowed."""
        with pytest.raises(InventoryError, match=says) as caught:
            parse_host(text)
        assert repr(text)[1:5] in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_local_is_here_and_under_this_python(self) -> None:
        """`local` needs no SSH, and its jobs see what the controller sees."""
        spec = parse_host("local/3")
        assert (spec.is_local, spec.slots, spec.python, spec.python_at_hand) == (True, 3, None, sys.executable)
        assert isinstance(make_transport(spec), LocalTransport)

    def test_localhost_is_ssh(self) -> None:
        """Somebody may want to test with it."""
        assert not parse_host("localhost").is_local
        assert isinstance(make_transport(parse_host("localhost")), ChosenTransport)

    def test_nodes_without_a_cluster_are_refused_with_what_to_do(self) -> None:
        """Less of them would not help."""
        with pytest.raises(InventoryError, match=r"leave nodes out, or add .* slurm://NAME") as caught:
            host_specs(["gpu1"], LaunchConf(resources={"nodes": 2}))
        assert "ask for less" not in str(caught.value)

    @pytest.mark.parametrize("texts", [["gpu1", "gpu1"], ["gpu1/2", "gpu1/3"], ["GPU1", "gpu1"]])
    def test_refuses_a_host_named_twice(self, texts: list[str]) -> None:
        """Two agents on one host would take the same slots."""
        with pytest.raises(InventoryError, match="twice"):
            host_specs(texts, LaunchConf())

    def test_two_users_of_one_host_are_two_hosts(self) -> None:
        """The second is named with its user, so that messages tell them apart."""
        assert [spec.name for spec in host_specs(["a@gpu1", "b@gpu1", "gpu2"], LaunchConf())] == [
            "gpu1",
            "b@gpu1",
            "gpu2",
        ]


class TestHostsFile:
    """YAML, field by field."""

    def write(self, folder: Path, text: str) -> Path:
        """A hosts file."""
        path = folder / "hosts.yaml"
        path.write_text(text)
        return path

    def test_reads_every_field(self, tmp_path: Path) -> None:
        """All that the page about hosts names."""
        path = self.write(
            tmp_path,
            f"""
            gpu1:
            gpu2:
              address: me@gpu2.example.org:2222
              slots: 4
              gpus: [0, GPU-aaaa-bbbb]
              python: ~/envs/my env/bin/python
              setup: [module load cuda, "conda activate x"]
              env: {{TOKEN: "a 'b' $c", N: 3}}
              workdir: /scratch/me
              fingerprint: {PIN}
              identity: /keys/id
              known_hosts: /keys/known_hosts
              ssh_config: /keys/config
              host_keys: accept-new
              downloads: ["https://packages.example.org/"]
            local: {{slots: auto, gpus: 2, downloads: true}}
            """,
        )
        assert load_hosts_file(path) == (
            HostSpec("gpu1", "gpu1"),
            HostSpec(
                "gpu2",
                "gpu2.example.org",
                user="me",
                port=2222,
                slots=4,
                gpus=(0, "GPU-aaaa-bbbb"),
                python="~/envs/my env/bin/python",
                setup=("module load cuda", "conda activate x"),
                env={"TOKEN": "a 'b' $c", "N": "3"},
                workdir="/scratch/me",
                fingerprint=PIN,
                identity="/keys/id",
                known_hosts="/keys/known_hosts",
                ssh_config="/keys/config",
                host_keys="accept-new",
                downloads=("https://packages.example.org/",),
            ),
            HostSpec("local", "local", slots="auto", gpus=2, downloads=True),
        )

    def test_gpus_may_be_those_that_are_free(self, tmp_path: Path) -> None:
        """Their number is the host's word, so no job is refused for it here. MIG instances have names of two kinds."""
        path = self.write(tmp_path, "gpu1: {gpus: free}\ngpu2: {gpus: [MIG-1a2b, MIG-GPU-aa-bb/7/0]}")
        one, two = load_hosts_file(path)
        assert (one.gpus, two.gpus) == ("free", ("MIG-1a2b", "MIG-GPU-aa-bb/7/0"))

    def test_a_host_that_says_nothing_of_downloads_has_what_the_options_say(self) -> None:
        """Its own value counts before them, also where that is no."""
        hosts = [
            {"name": "a"},
            {"name": "b", "downloads": False},
            {"name": "c", "downloads": ["https://a.example.org"]},
        ]
        told = [one.downloads for one in host_specs(hosts, LaunchConf(downloads=True))]
        assert told == [True, False, ("https://a.example.org",)]

    def test_reads_lists_and_a_hosts_key(self, tmp_path: Path) -> None:
        """The forms that people write without looking."""
        path = self.write(tmp_path, "hosts:\n- gpu1/2\n- {name: gpu2, address: 10.0.0.2}\n")
        assert load_hosts_file(path) == (HostSpec("gpu1", "gpu1", slots=2), HostSpec("gpu2", "10.0.0.2"))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "no hosts"),
            ("{}", "no hosts"),
            ("hosts: []", "no hosts"),
            ("just text", "no hosts"),
            ("a: [", "not YAML"),
            ("gpu1: {slots: 1}\ngpu1: {slots: 2}", "twice"),
            ("gpu1: {slots: 1, slots: 2}", "twice"),
            ("gpu1: {slot: 2}", "host gpu1: unknown field 'slot'; did you mean 'slots'"),
            ("gpu1: {pyhton: x}", "did you mean 'python'"),
            ("gpu1: {zzzzzz: x}", "known are address, user"),
            ("gpu1: 4", "not a mapping"),
            ("gpu1: {slots: -1}", "host gpu1: slots"),
            ("gpu1: {slots: true}", "slots"),
            ("gpu1: {slots: '2'}", "slots"),
            ("gpu1: {slots: .inf}", "slots"),
            ("gpu1: {port: 70000}", "port"),
            ("gpu1: {port: yes}", "port"),
            ("gpu1: {port: 1.5}", "port"),
            ("gpu1: {user: [a]}", "user"),
            ("gpu1: {user: -o}", "user"),
            ("gpu1: {address: -oProxyCommand=x}", "host gpu1: address"),
            ("gpu1: {address: 5}", "address"),
            ("'gpu1;x': {}", "not a host name"),
            ("-x: {}", "not a host name"),
            ("5: {}", "not a host name"),
            ("gpu1: {address: a@b, user: c}", "give it once"),
            ("gpu1: {address: 'b:1', port: 2}", "give it once"),
            ("gpu1: {gpus: -1}", "gpus"),
            ("gpu1: {gpus: [1.5]}", "gpus"),
            ("gpu1: {gpus: ['a b']}", "gpus"),
            ("gpu1: {gpus: 0.5}", "neither a count nor a list of indices or UUIDs, nor 'free'"),
            ("gpu1: {gpus: Free}", r"nor 'free'; write \[Free\] for that one"),
            ("gpu1: {gpus: GPU-5a0c}", r"write \[GPU-5a0c\] for that one"),
            ("gpu1: {python: 'a;b'}", "python"),
            ("gpu1: {python: -x}", "python"),
            ("gpu1: {python: 3}", "python"),
            ("gpu1: {setup: {a: b}}", "setup"),
            ("gpu1: {setup: [1]}", "setup"),
            ("gpu1: {env: [A]}", "env"),
            ("gpu1: {env: {'A B': c}}", "variable's name"),
            ("gpu1: {env: {A: [secret]}}", "the value of A"),
            ("gpu1: {env: {A: true}}", "the value of A"),
            ("gpu1: {workdir: relative/path}", "workdir"),
            ('gpu1: {workdir: "/a\\nb"}', "workdir"),
            ("gpu1: {fingerprint: MD5:00}", "fingerprint"),
            ("gpu1: {host_keys: maybe}", "host_keys"),
            ("local: {user: x}", "has no meaning"),
            ("local: {fingerprint: " + PIN + "}", "has no meaning"),
            ("- {address: a}", "neither"),
            ("- 5", "neither"),
            ("- 'a b'", "not a host name"),
            ("a: {address: x}\nb: {address: X}", "twice"),
            ("? [a, b]\n: {}", "not YAML"),
            ("!!python/object/apply:os.system ['true']", "not YAML"),
        ],
    )
    def test_refuses(self, tmp_path: Path, text: str, says: str) -> None:
        """With the file, the host and the field."""
        path = self.write(tmp_path, text)
        with pytest.raises(InventoryError, match=says) as caught:
            load_hosts_file(path)
        assert str(path) in str(caught.value)

    def test_never_shows_the_value_of_a_variable(self, tmp_path: Path) -> None:
        """It may be a secret; neither errors nor reprs hold it."""
        path = self.write(tmp_path, "gpu1: {env: {A: [hunter2]}}")
        with pytest.raises(InventoryError) as caught:
            load_hosts_file(path)
        assert "hunter2" not in str(caught.value)
        (spec,) = load_hosts_file(self.write(tmp_path, "gpu1: {env: {A: hunter2}}"))
        assert "hunter2" not in repr(spec)

    def test_refuses_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """By its name."""
        with pytest.raises(InventoryError, match=r"none\.yaml"):
            load_hosts_file(tmp_path / "none.yaml")


class TestBounds:
    """A hosts file costs what it is long, whatever it says."""

    def bomb(self, depth: int = 10) -> str:
        """Lists of lists, by aliases: a few hundred bytes that stand for nine to the tenth."""
        rows = ["a: &a [x,x,x,x,x,x,x,x,x]"]
        for number in range(1, depth):
            above, name = chr(96 + number), chr(97 + number)
            rows.append(f"{name}: &{name} [{','.join([f'*{above}'] * 9)}]")
        return "\n".join(rows) + "\n"

    @pytest.mark.parametrize(
        "text",
        [
            "{bomb}",
            "gpu1:\n  setup:\n    - {ring}\n",
            "gpu1: &a\n  env: *a\n",
            "&a [*a]\n",
        ],
        ids=["lists", "list in itself", "mapping in itself", "nothing but itself"],
    )
    def test_aliases_that_stand_for_too_much_are_refused(self, tmp_path, text):
        """Those in a ring have no end at all."""
        file = tmp_path / "hosts.yaml"
        file.write_text(text.replace("{bomb}", self.bomb()).replace("{ring}", "&r [*r]"))
        with pytest.raises(InventoryError, match="expanded with its aliases, it has more than") as caught:
            load_hosts_file(file)
        assert len(str(caught.value)) < 500

    def test_aliases_that_a_person_writes_are_fine(self, tmp_path):
        """What several hosts share is written once."""
        file = tmp_path / "hosts.yaml"
        file.write_text(
            "gpu1:\n  env: &common {A: '1'}\n  setup: &setup [module load cuda]\ngpu2:\n  env: *common\n  setup: *setup\n"
        )
        first, second = load_hosts_file(file)
        assert dict(first.env) == dict(second.env) == {"A": "1"}
        assert first.setup == second.setup

    def test_an_error_shows_a_little_of_what_is_wrong(self, tmp_path):
        """Also where that is just below the limit, or given in Python."""
        file = tmp_path / "hosts.yaml"
        file.write_text(self.bomb(5))
        with pytest.raises(InventoryError, match="is not a mapping of fields") as caught:
            load_hosts_file(file)
        assert len(str(caught.value)) < 500
        bomb: object = "x"
        for _ in range(50):
            bomb = [bomb] * 9
        for content in (
            {"gpu1": bomb},
            {"gpu1": {"setup": bomb}},
            {"gpu1": {"port": 10**9000}},
            {"x" * 100_000: {}},
            [bomb],
        ):
            with pytest.raises(InventoryError) as caught:
                load_hosts(content, "here")
            assert len(str(caught.value)) < 700

    def test_a_file_without_end_is_refused(self, tmp_path):
        """A device, say."""
        with pytest.raises(InventoryError, match="more than 16777216 characters"):
            load_hosts_file("/dev/zero")

    @pytest.mark.parametrize("value", ["1" * 5000, "2026-13-45", "0x" + "f" * 9000])
    def test_numbers_and_dates_that_are_none_are_refused(self, tmp_path, value):
        """Those that Python itself refuses to read."""
        file = tmp_path / "hosts.yaml"
        file.write_text(f"gpu1: {{port: {value}}}\n")
        with pytest.raises(InventoryError) as caught:
            load_hosts_file(file)
        assert len(str(caught.value)) < 700

    @pytest.mark.slow
    def test_what_is_nested_deeply_is_refused(self, tmp_path):
        """In few words."""
        file = tmp_path / "hosts.yaml"
        file.write_text("[" * 5000)
        with pytest.raises(InventoryError, match="not YAML") as caught:
            load_hosts_file(file)
        assert len(str(caught.value)) < 700


class TestSlurm:
    """The login node of a cluster."""

    def test_what_an_allocation_has(self) -> None:
        """As the user wrote it."""
        slurm = {"partition": "gpu", "time": "4:00:00", "cpus": 8, "options": ["--constraint=a100"], "allocations": 4}
        (spec,) = load_hosts({"login": {"slurm": slurm}}, "hosts.yaml")
        assert spec.slurm == slurm

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"slurm": "gpu"}, "not a mapping"),
            ({"slurm": {"partitoin": "gpu"}}, "did you mean 'partition'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, fields: dict[str, object], says: str) -> None:
        """With the place."""
        with pytest.raises(InventoryError, match=says) as caught:
            load_hosts({"login": fields}, "hosts.yaml")
        assert str(caught.value).startswith("hosts.yaml: host login: slurm")

    @pytest.mark.parametrize(
        "host", [{"slots": 2}, {"gpus": 1}, {"cpus": 1}, {"memory": "1GiB"}], ids=lambda host: next(iter(host))
    )
    def test_what_does_not_work_there_is_refused(self, host: dict[str, object]) -> None:
        """By name, before anything is sent."""
        with pytest.raises(InventoryError, match=next(iter(host))):
            host_specs([{"name": "login", "slurm": {}, **host}], LaunchConf())

    def test_slurm_knows_what_a_job_can_have(self) -> None:
        """So nothing that a job needs is refused here."""
        (spec,) = host_specs([{"name": "login", "slurm": {"cpus": 1}}], LaunchConf(resources={"cpus": 20}))
        assert spec.slurm == {"cpus": 1}
