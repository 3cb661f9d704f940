"""The options of `hydra/launcher=remote`, which are those of the command line and of LaunchConf.

Rule: a module with an underscore, so that plugin discovery never executes it twice: the class stays one class, and configs
that hold it can be pickled (hydra#2864).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["RemoteLauncherConf", "register"]


@dataclass
class RemoteLauncherConf:
    """See `launcher.options.LaunchConf` for what each field means, and docs/hydra.md."""

    _target_: str = "hydra_plugins.hydra_remote_launcher.remote_launcher.RemoteLauncher"
    #: Hydra does not look into `hosts` and `env`: having resolved them once, it would take `${x}` in a value for more to resolve.
    _recursive_: bool = False
    #: `[user@]host[:port][/slots]`, or mappings as in a hosts file; none: this machine.
    hosts: Any = field(default_factory=list)
    #: A YAML file of hosts with more detail.
    hosts_file: str | None = None
    #: The jobs' Python, on hosts that name none.
    python: str | None = None
    #: Shell lines before that Python, on every host.
    setup: list[str] = field(default_factory=list)
    #: Variables for the jobs; their values are kept out of every file that is written.
    env: dict[str, Any] = field(default_factory=dict)
    #: Variables of this process that the jobs get.
    forward_env: list[str] = field(default_factory=list)
    #: `auto`: the project travels; `shared`: hosts see the same files.
    code: str = "auto"
    #: Cap of what travels as code.
    max_code_size: Any = "100MiB"
    #: `auto`, `fork` or `spawn`.
    isolation: str = "auto"
    #: Output directories come back: true, false, or a list of patterns.
    outputs: Any = True
    #: Show what jobs print while they run.
    live: bool = False
    #: Seconds, or text such as 30m: until a job is terminated, from there until it is killed, for its end hooks, for its
    #: process to end after that (none: as long as the end hooks).
    timeout: Any = None
    grace: Any = 10.0
    hook_timeout: Any = 300.0
    shutdown_timeout: Any = None
    #: Further attempts of a failed job: a number, or numbers by kind of error.
    retries: Any = 0
    #: `wait`, `retry` or `fail`; the latter two after host_loss_timeout.
    on_host_loss: str = "wait"
    host_loss_timeout: Any = 600.0
    #: Stop after the first failed job; after so many.
    fail_fast: bool = False
    max_failures: int | None = None
    #: A host without a controller for so long ends its jobs.
    lease: Any = None
    #: What a raising hook does, by callback name: `warn`, `fail`, `abort`.
    on_error: dict[str, str] = field(default_factory=dict)
    #: What may be decoded of what comes back: `trusted`, `safe`, `never`.
    results: str = "trusted"
    #: Types that `safe` allows besides plain data.
    allow_types: list[str] = field(default_factory=list)
    #: Cap of a job's stdout, and of its stderr.
    max_output_bytes: Any = "64MiB"
    #: Add unknown host keys to known_hosts instead of refusing them.
    accept_new_host_keys: bool = False
    #: Folder for cache and state on hosts that name none.
    workdir: str | None = None


def register() -> None:
    """Put the options into Hydra's ConfigStore as `hydra/launcher=remote`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    # Unknown keys reach the launcher, which names the nearest known one; Hydra would only say that there is none.
    node = OmegaConf.structured(RemoteLauncherConf, flags={"struct": False})
    ConfigStore.instance().store(group="hydra/launcher", name="remote", node=node, provider="hydra-remote-launcher")
