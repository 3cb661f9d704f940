"""The options of `hydra/launcher=remote`, which are those of the command line and of LaunchConf.

Rule: a module with an underscore, so that plugin discovery never executes it twice: the class stays one class, and configs
that hold it can be pickled (hydra#2864). It imports nothing of ours: every Hydra app imports it, also one whose own package
is called `launcher`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["RemoteLauncherConf", "register"]


@dataclass
class RemoteLauncherConf:
    """See `launcher.options.LaunchConf` for what each field means, and docs/hydra.md."""

    _target_: str = "hydra_plugins.hydra_remote_launcher.remote_launcher.RemoteLauncher"
    #: Hydra must not instantiate nodes in `hosts` and `env`: it would resolve `${x}` in a value a second time.
    _recursive_: bool = False
    # The fields of LaunchConf; `python -m tests.hydra.schema` writes them.
    #: Hosts to use.
    hosts: Any = field(default_factory=list)
    #: A YAML file of hosts with their settings. They are added to the other hosts.
    hosts_file: str | None = None
    #: The Python that runs the jobs, on hosts whose settings name none.
    python: str | None = None
    #: The packages of the jobs. FILE: a uv.lock, pylock.toml, requirements.txt or script; `script`: what the app's own
    #: block of metadata names; `auto`: what the project has; `none`: only what hosts have. Hosts get an environment
    #: with exactly these packages.
    environment: str | None = None
    #: An extra of the project, whose packages the environment has, too.
    extras: list[str] = field(default_factory=list)
    #: A dependency group of the project, whose packages the environment has, too.
    groups: list[str] = field(default_factory=list)
    #: Whether hosts may fetch packages and a Python from their own internet, if that needs no password. A config may
    #: name the beginnings of the addresses that hosts may ask.
    downloads: Any = False
    #: The time for each step of making an environment: resolving, building a wheel, installing.
    environment_timeout: Any = 1800.0
    #: How much disk environments may take on a host. Before another one is built, those that no job uses are removed,
    #: the longest unused first.
    environments_budget: Any = "50GiB"
    #: A shell line that every host runs before it starts the jobs' Python, such as `module load cuda`.
    setup: list[str] = field(default_factory=list)
    #: A variable for the jobs. Its value is not written to any file.
    env: dict[str, Any] = field(default_factory=dict)
    #: Names of variables of this process that the jobs get, too.
    forward_env: list[str] = field(default_factory=list)
    #: How long a host keeps a process after a run that has imported the app's packages, so that the next run starts
    #: sooner. 0: it keeps none.
    warm: Any = "10m"
    #: What each job needs, unless its config says it: gpus, cpus (usually 1) and memory; on a Slurm cluster also nodes,
    #: tasks and time. A host runs as many jobs at once as it has room for. Each has CPUs and GPUs of its own.
    resources: dict[str, Any] = field(default_factory=dict)
    #: auto: the project is copied to the hosts; shared: the hosts see the same files.
    code: str = "auto"
    #: The largest total size of the code that is copied to a host.
    max_code_size: Any = "100MiB"
    #: How a job gets its process. fork: a copy of a process that has imported the app; spawn: a new Python, which
    #: imports it again; auto: fork, or spawn where a fork would not work; reuse: jobs share processes, for thousands of
    #: short jobs.
    isolation: str = "auto"
    #: Whether the output directories of jobs are copied back. A config may name patterns of the files that are; on the
    #: command line, --output does.
    outputs: Any = True
    #: While a job runs, copy what is new in its output directory, about this often: 30s, 5m.
    sync_outputs: Any = None
    #: With --sync-outputs: copy only files that match while the job runs, such as `events.*`. All others come when it
    #: has ended.
    sync_only: list[str] = field(default_factory=list)
    #: Show what jobs print while they run.
    live: bool = False
    #: End a job after this time: 90 (seconds), 30m, 1h30m.
    timeout: Any = None
    #: The time that a job has to end after SIGTERM. Then it gets SIGKILL.
    grace: Any = 10.0
    #: The time for a job's end hooks.
    hook_timeout: Any = 300.0
    #: The time that a job's process has to end after its end hooks (threads, atexit).
    shutdown_timeout: Any = None
    #: A job may leave processes that it started and did not wait for. They have this time to end.
    children_timeout: Any = 2.0
    #: Continue the sweep in its folder: only those jobs run whose config has not completed there.
    continue_sweep: bool = False
    #: With --continue: refuse if the completed jobs ran other code than the present one.
    same_code: bool = False
    #: How often a failed job is tried again: a number, or a number for each kind of error.
    retries: Any = 0
    #: What is done with the jobs of a host that does not come back. wait: wait for it; retry: run them on another host;
    #: fail: count them as failed.
    on_host_loss: str = "wait"
    #: How long to wait for a host that does not come back (not with `--on-host-loss wait`).
    host_loss_timeout: Any = 600.0
    #: Stop the run after the first failed job.
    fail_fast: bool = False
    #: Stop the run after N failed jobs.
    max_failures: int | None = None
    #: A host that has not heard from this machine for this time ends its jobs. Without this option, jobs go on.
    lease: Any = None
    #: What an error in this callback does. warn: only a warning; fail: the job fails; abort: the run ends.
    on_error: dict[str, str] = field(default_factory=dict)
    #: Which returned values are decoded. trusted: pickles, which can run code; safe: plain data only; never: none.
    results: str = "trusted"
    #: A class whose objects `--results safe` decodes besides plain data.
    allow_types: list[str] = field(default_factory=list)
    #: How much of a job's stdout, and of its stderr, is kept.
    max_output_bytes: Any = "64MiB"
    #: Add the keys of unknown hosts to known_hosts. Without this option, such hosts are refused.
    accept_new_host_keys: bool = False
    #: Which program logs in. fabric: Python alone, with keys; openssh: the `ssh` program, with all that it can do;
    #: auto: openssh if `launcher connect` keeps a connection, or if ssh's configuration asks for what fabric cannot do,
    #: and else fabric.
    ssh: str = "auto"
    #: Send a trace of the run over OTLP/HTTP when it has ended, to the address in OTEL_EXPORTER_OTLP_ENDPOINT. Jobs get
    #: TRACEPARENT. This needs the extra `otel`.
    otel: bool = False
    #: The folder for cache and state, on hosts whose settings name none.
    workdir: str | None = None
    # The end of what is written.


#: How Hydra names who has added the options.
_PROVIDER = "hydra-remote-launcher"


def register() -> None:
    """Add the options to Hydra's ConfigStore as `hydra/launcher=remote`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    before = store.repo.get("hydra", {}).get("launcher", {}).get("remote.yaml")
    # Hydra runs the plugin's module once more if it was imported before. To make the node takes longer than all the rest of the plugin.
    if before is not None and before.provider == _PROVIDER:
        return
    # Unknown keys are allowed here, so that the launcher can refuse them and name the nearest known key.
    node = OmegaConf.structured(RemoteLauncherConf, flags={"struct": False})
    store.store(group="hydra/launcher", name="remote", node=node, provider=_PROVIDER)
