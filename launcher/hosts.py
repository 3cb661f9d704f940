"""What a run is called, and its hosts: as given, else those of its options, else this machine.

Rule: what the options say of all hosts is filled in where a host says nothing itself. Cheap to import: connections are begun
with this, before what the rest of a run needs is imported.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from launcher import inventory
from launcher.errors import InventoryError
from launcher.inventory import HostSpec
from launcher.options import LaunchConf
from launcher.util.quoting import shown

__all__ = ["host_list", "host_specs", "new_run_id"]


def new_run_id() -> str:
    """A run's name: when it began, and six hex digits."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


def host_list(hosts: Any) -> list[Any] | None:
    """Hosts as a list; one that stands for itself is a list of one, whose letters are no hosts.

    Raises:
        InventoryError: it is none, or there is nothing in it: that is hardly what was meant.
    """
    if hosts is None:
        return None
    if isinstance(hosts, (str, Mapping, HostSpec)):
        return [hosts]
    if not isinstance(hosts, Iterable) or isinstance(hosts, (bytes, bytearray)):
        raise InventoryError(f"hosts: {shown(hosts)} is not a list of hosts")
    given = list(hosts)
    if not given:
        raise InventoryError("hosts: the list is empty; to run on this machine leave it out, or say 'local'")
    return given


def host_specs(hosts: Sequence[Any] | None, options: LaunchConf) -> list[HostSpec]:
    """The hosts of a run: as given, else those of the options and of their hosts file, else this machine.

    Raises:
        InventoryError: one cannot be used, or is there twice.
    """
    given = host_list(hosts) if hosts is not None else list(options.hosts)
    specs = [_host_spec(host) for host in given or ()]
    if options.hosts_file:
        specs += inventory.load_hosts_file(options.hosts_file)
    if not specs:
        specs = [inventory.parse_host("local")]
    keys: Literal["strict", "accept-new"] = "accept-new" if options.accept_new_host_keys else "strict"
    return [
        dataclasses.replace(
            spec,
            workdir=spec.workdir or options.workdir,
            host_keys=keys if not spec.is_local and spec.host_keys == "strict" else spec.host_keys,
        )
        for spec in inventory.distinct(specs)
    ]


def _host_spec(host: Any) -> HostSpec:
    if isinstance(host, HostSpec):
        return host
    if isinstance(host, str):
        return inventory.parse_host(host)
    if not isinstance(host, Mapping):
        raise InventoryError(f"host {shown(host)} is neither `[user@]host[:port][/slots]` nor a mapping with a name")
    values = dict(host)
    name = values.pop("name", None) or values.get("address")
    return inventory.load_hosts({name: values}, "hosts")[0]
