"""The hosts that the user named, as data, before anything is sent to them.

Rule: a host that is not valid is refused here. The message names the argument, or the file and field, and says what is allowed.
Only the transport finds out whether a host can be reached. This module is cheap to import, because connections begin with it,
before everything else that a run needs is imported.

    --host gpu1   --host user@gpu2:2222/4   --host [::1]:22/2   --host gpu3/auto   --host local

`local` is this machine without SSH; `localhost` is SSH to this machine. A hosts file is YAML, a mapping of names (or a list):

    gpu1: {}
    gpu2: {address: user@gpu2.example.org:2222, slots: 4, python: ~/env/bin/python, setup: [module load cuda]}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from launcher.errors import InventoryError
from launcher.hosts.fields import FIELD_CHECKS, SSH_ONLY, USER, check_port, check_slots
from launcher.hosts.host_spec import LOCAL, HostSpec, said_too_little
from launcher.util.text.near import names_like
from launcher.util.text.quoting import shown

if TYPE_CHECKING:
    from launcher.options import LaunchConf

__all__ = ["check_size", "host_list", "host_specs", "load_hosts", "load_hosts_file", "parse_host"]

#: Before the login node of a Slurm cluster.
_SLURM = "slurm://"
#: What somebody may write as a password, up to the host. No message has it.
_PASSWORD = re.compile(r":(?!//).*@", re.DOTALL)
#: Characters of a hosts file.
_MAX_FILE = 16 << 20
#: Letters, digits and `._-`, with `:` and a `%zone` for IPv6. Neither ssh nor a shell reads anything else in it.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")


_FIELDS = tuple(one.name for one in fields(HostSpec) if one.name != "name")


def host_list(hosts: Any) -> list[Any] | None:
    """Return hosts as a list. A single host becomes a list of one.

    Raises:
        InventoryError: they are not a list, or the list is empty.
    """
    if hosts is None:
        return None
    if isinstance(hosts, (str, Mapping, HostSpec)):
        return [hosts]
    if not isinstance(hosts, Iterable) or isinstance(hosts, (bytes, bytearray)):
        raise InventoryError(f"hosts: {shown(hosts)} is not a list of hosts")
    given = list(hosts)
    if not given:
        raise InventoryError("hosts: the list is empty; to run on this machine leave it out, or write 'local'")
    return given


def host_specs(hosts: Sequence[Any] | None, options: LaunchConf) -> list[HostSpec]:
    """Return the hosts of a run: those given, or else those of the options and of their hosts file, or else this machine.

    A host gets the options' value of every setting that it does not have itself.

    Raises:
        InventoryError: a host cannot be used, is named twice, or all of them are known to be too small for a job.
    """
    given = host_list(hosts) if hosts is not None else list(options.hosts)
    specs = [_host_spec(host) for host in given or ()]
    if options.hosts_file:
        specs += load_hosts_file(options.hosts_file)
    if not specs:
        specs = [parse_host(LOCAL)]
    keys: Literal["strict", "accept-new"] = "accept-new" if options.accept_new_host_keys else "strict"
    check_slurm(specs, options)
    return [
        replace(
            spec,
            workdir=spec.workdir or options.workdir,
            downloads=options.downloads if spec.downloads is None else spec.downloads,
            host_keys=keys if not spec.is_local and spec.host_keys == "strict" else spec.host_keys,
            ssh=None if spec.is_local else spec.ssh or cast("Literal['auto', 'fabric', 'openssh']", options.ssh),
        )
        for spec in check_size(_check_unique("hosts", specs), options.resources)
    ]


def check_size(specs: Sequence[HostSpec], needs: Mapping[str, int]) -> Sequence[HostSpec]:
    """Refuse jobs that no host can have, as far as the user says what hosts have. What a host finds is its own word, later.

    Raises:
        InventoryError: naming each host with what it has.
    """
    too_small = [f"{spec.name} has {too_little}" for spec in specs if (too_little := said_too_little(spec, needs))]
    if len(too_small) == len(specs):
        asked = ", ".join(f"{name}={need}" for name, need in needs.items())
        of_cluster = [name for name in ("nodes", "tasks", "time") if needs.get(name)]
        step = (
            f"leave {' and '.join(of_cluster)} out, or add the login node of a cluster, as slurm://NAME"
            if of_cluster
            else "ask for less"
        )
        raise InventoryError(
            f"resources: no host is large enough for a job with {asked}: {'; '.join(too_small)}; {step}"
        )
    return specs


def check_slurm(specs: Sequence[HostSpec], options: LaunchConf) -> Sequence[HostSpec]:
    """Refuse what does not work with a Slurm cluster.

    Raises:
        InventoryError: naming the host and the setting.
    """
    for spec in specs:
        if spec.slurm is None:
            continue
        for name in ("slots", "gpus", "cpus", "memory"):
            if getattr(spec, name) is not None:
                raise InventoryError(
                    f"host {spec.name}: {name} cannot be given with slurm, because Slurm places the jobs; leave it out, and write what an "
                    f"allocation has below `slurm:` (cpus, gpus, mem, slots)"
                )
    return specs


def _host_spec(host: Any) -> HostSpec:
    if isinstance(host, HostSpec):
        return host
    if isinstance(host, str):
        return parse_host(host)
    if not isinstance(host, Mapping):
        raise InventoryError(
            f"host {shown(host)} is neither `[user@]host[:port][/slots]` nor a mapping with a name; write gpu1, or {{name: gpu1, slots: 2}}"
        )
    values = dict(host)
    name = values.pop("name", None) or values.get("address")
    return load_hosts({name: values}, "hosts")[0]


def parse_host(text: str) -> HostSpec:
    """Parse a host as on the command line: `[user@]host[:port][/slots]`, where slots is a number or `auto`.

    Raises:
        InventoryError: it is not valid. The message says what is wrong and what is allowed.
    """
    where = f"host {shown(_PASSWORD.sub(':***@', text))}"
    if "," in text:
        raise InventoryError(f"{where}: one host each, as in --host gpu1 --host gpu2 or hosts=[gpu1,gpu2]")
    text = text.strip()
    if text.startswith(_SLURM):
        address, slash, _ = text.removeprefix(_SLURM).partition("/")
        if slash:
            raise InventoryError(
                f"{where}: a cluster has no slots, because Slurm places the jobs; write slurm://LOGIN, "
                "and say how many allocations there may be with `slurm: {allocations: N}` in a hosts file"
            )
        return replace(_parse_address(where, address), slurm={})
    rest, slash, slots = text.partition("/")
    spec = _parse_address(where, rest)
    if slash:
        spec = replace(spec, slots=check_slots(where, int(slots) if re.fullmatch(r"[0-9]{1,9}", slots) else slots))
    return spec


def _parse_address(where: str, text: str) -> HostSpec:
    user: str | None
    user, at, rest = text.rpartition("@")
    if not at:
        user = None
    elif ":" in str(user):
        raise InventoryError(
            f"{where}: a host's name cannot have a password; write user@host, and log in with a key, or with `launcher connect`"
        )
    elif not USER.fullmatch(str(user)):
        raise InventoryError(f"{where}: {shown(user)} is not a user name")
    address, port = _split_port(where, rest)
    if not (_NAME.fullmatch(address) or _IPV6.fullmatch(address)):
        raise InventoryError(
            f"{where}: {shown(address)} is not a host name (letters, digits, '.', '_' and '-', not starting with '-'; "
            "an IPv6 address with a port in brackets)"
        )
    if address == LOCAL and (user is not None or port is not None):
        raise InventoryError(f"{where}: 'local' is this machine without SSH; for SSH to this machine write 'localhost'")
    name = rest if port is None else f"{address if ':' not in address else f'[{address}]'}:{port}"
    if rest.startswith("[") and port is None:
        name = address
    return HostSpec(name=name, address=address, user=user, port=port)


def _split_port(where: str, text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or rest == ":":
            raise InventoryError(f"{where}: an IPv6 address is [address] or [address]:port")
        port = rest[1:]
        return address, check_port(where, port) if rest else None
    if text.count(":") > 1:
        return text, None
    address, colon, port = text.partition(":")
    return address, check_port(where, port) if colon else None


def load_hosts_file(path: str | os.PathLike[str]) -> tuple[HostSpec, ...]:
    """Load the hosts of a YAML file.

    Raises:
        InventoryError: the message names file, host, field and what is allowed (for an unknown field, the nearest known one).
    """
    from launcher.util.text import strict_yaml

    file = os.fspath(path)
    try:
        with Path(file).open(encoding="utf-8") as opened:
            text = opened.read(_MAX_FILE + 1)
    except FileNotFoundError:
        hint = f"; if {file} is a host, say --host {file} or hosts=[{file}]" if _NAME.fullmatch(file) else ""
        raise InventoryError(f"hosts file {file}: cannot be read: there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InventoryError(f"hosts file {file}: cannot be read ({error})") from None
    if len(text) > _MAX_FILE:
        raise InventoryError(f"hosts file {file}: it has more than {_MAX_FILE} characters")
    try:
        content = strict_yaml.read(text)
    except ValueError as error:
        raise InventoryError(f"hosts file {file}: not YAML: {error}") from None
    return load_hosts(content, file)


def load_hosts(content: Any, file: str) -> tuple[HostSpec, ...]:
    """Make hosts from the content of a hosts file, as plain data. See `load_hosts_file`."""
    if isinstance(content, dict) and set(content) == {"hosts"}:
        content = content["hosts"]
    if not isinstance(content, (dict, list)) or not content:
        raise InventoryError(
            f"{file}: no hosts in it; write one a line, as `gpu1:` with its fields below it, or as a list, `- gpu1`"
        )
    specs = []
    for entry in content.items() if isinstance(content, dict) else content:
        if isinstance(content, list) and isinstance(entry, str):
            specs.append(_in_file(file, entry))
            continue
        if isinstance(content, list) and isinstance(entry, dict) and "name" in entry:
            entry = (entry["name"], {key: value for key, value in entry.items() if key != "name"})
        if not isinstance(entry, tuple):
            raise InventoryError(
                f"{file}: {shown(entry)} is neither a host's name nor a mapping with a name; write `- gpu1`, or `- {{name: gpu1, slots: 2}}`"
            )
        specs.append(_from_mapping(file, *entry))
    return _check_unique(file, specs)


def _in_file(file: str, text: str) -> HostSpec:
    try:
        return parse_host(text)
    except InventoryError as error:
        raise InventoryError(f"{file}: {error}") from None


def _from_mapping(file: str, name: Any, content: Any) -> HostSpec:
    if not isinstance(name, str) or not (_NAME.fullmatch(name) or _IPV6.fullmatch(name)):
        raise InventoryError(f"{file}: {shown(name)} is not a host name (letters, digits, '.', '_' and '-')")
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InventoryError(f"{file}: host {name}: {shown(content)} is not a mapping of fields")
    for key in content:
        if key not in _FIELDS:
            near = names_like(shown(key).strip("'"), _FIELDS)
            hint = f"did you mean {shown(near[0])}?" if near else f"known are {', '.join(_FIELDS)}"
            raise InventoryError(f"{file}: host {name}: unknown field {shown(key)}; {hint}")
    where = f"{file}: host {name}"
    address = content.get("address", name)
    if not isinstance(address, str):
        raise InventoryError(f"{where}: address: {shown(address)} is not text")
    base = _parse_address(f"{where}: address", address)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key != "address" and value is not None:
            values[key] = FIELD_CHECKS[key](f"{where}: {key}", value)
    for key in ("user", "port"):
        if key in values and getattr(base, key) is not None:
            raise InventoryError(f"{where}: {key} is given in address and as a field; give it once")
    if base.is_local and set(values) & SSH_ONLY:
        raise InventoryError(
            f"{where}: 'local' is this machine without SSH, where {min(set(values) & SSH_ONLY)} has no meaning"
        )
    return replace(base, name=name, **values)


def _check_unique(where: str, specs: Sequence[HostSpec]) -> tuple[HostSpec, ...]:
    """Return the hosts, each with a unique name. Two users of one host are two hosts, named with their users."""
    names: set[str] = set()
    places: dict[tuple[str, str | None, int | None], str] = {}
    found = []
    for spec in specs:
        place = (spec.address.lower(), spec.user, spec.port)
        if spec.name in names and place not in places and spec.user:
            spec = replace(spec, name=f"{spec.user}@{spec.name}")
        if spec.name in names or place in places:
            other = places.get(place, spec.name)
            raise InventoryError(
                f"{where}: {shown(spec.name)} is named twice"
                + (f" (also as {shown(other)})" if other != spec.name else "")
                + f"; name it once, and for more jobs at once write {shown(f'{spec.name}/N')} or `slots: N`"
            )
        names.add(spec.name)
        places[place] = spec.name
        found.append(spec)
    return tuple(found)
