"""LaunchConf: every option of a run, in one place, for Python, the command line and Hydra.

A new option is one field of it. The command line (`launcher.cli.flags`) makes its options of the fields, and
`python -m tests.hydra.schema` writes the schema of the Hydra plugin from them.

Rule: a wrong value is refused here (`launcher.options.checks`). The error names the field and says what is allowed; for an unknown key it names the nearest
one. The command line and the plugin replace the field's name with their own name for it (see `UsageError`). Nothing else in the
project reads raw options.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from launcher.errors import ConfigError
from launcher.options import checks
from launcher.options.fields import Form, Group, Option, chosen, field
from launcher.util.text.near import names_like
from launcher.util.text.quoting import shown

__all__ = ["LaunchConf", "option_fields", "options_of"]

#: Kinds of error that another attempt would not change, or that the user asked for.
_NOT_RETRIED = ("cancelled", "config", "import")


@dataclasses.dataclass(frozen=True)
class LaunchConf:
    """Every option of a run; the help of each field says what it does.

    A field holds its value as the program uses it: seconds, bytes, tuples, dicts.
    """

    __module__ = "launcher.options"  # for good: pickles name it

    hosts: tuple[Any, ...] = field(
        (),
        Option(
            checks.hosts,
            "Hosts to use.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--host", "-H"),
            metavar="[USER@]HOST[:PORT][/SLOTS]",
            usual="this machine",
        ),
    )
    hosts_file: str | None = field(
        None,
        Option(
            checks.text,
            "A YAML file of hosts with their settings. They are added to the other hosts.",
            Group.HOSTS,
            flags=("--hosts",),
            metavar="FILE",
        ),
    )
    python: str | None = field(
        None,
        Option(
            checks.text,
            "The Python that runs the jobs, on hosts whose settings name none.",
            Group.HOSTS,
            metavar="PATH",
        ),
    )
    environment: str | None = field(
        None,
        Option(
            checks.text,
            "The packages of the jobs. FILE: a uv.lock, pylock.toml, requirements.txt or script; `script`: what the app's own block of metadata names; "
            "`auto`: what the project has; `none`: only what hosts have. Hosts get an environment with exactly these packages.",
            Group.HOSTS,
            metavar="FILE|auto|script|none",
        ),
    )
    extras: tuple[str, ...] = field(
        (),
        Option(
            checks.texts,
            "An extra of the project, whose packages the environment has, too.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--extra",),
            metavar="NAME",
        ),
    )
    groups: tuple[str, ...] = field(
        (),
        Option(
            checks.texts,
            "A dependency group of the project, whose packages the environment has, too.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--group",),
            metavar="NAME",
        ),
    )
    downloads: bool | tuple[str, ...] = field(
        False,
        Option(
            checks.downloads,
            "Whether hosts may fetch packages and a Python from their own internet, if that needs no password. A config may name the beginnings of the "
            "addresses that hosts may ask.",
            Group.HOSTS,
            Form.SWITCH,
            usual="no",
        ),
    )
    environment_timeout: float = field(
        1800.0,
        Option(
            checks.parse_duration,
            "The time for each step of making an environment: resolving, building a wheel, installing.",
            Group.HOSTS,
            metavar="DURATION",
        ),
    )
    environments_budget: int = field(
        "50GiB",
        Option(
            checks.parse_size,
            "How much disk environments may take on a host. Before another one is built, those that no job uses are removed, the longest unused first.",
            Group.HOSTS,
            metavar="SIZE",
        ),
    )
    setup: tuple[str, ...] = field(
        (),
        Option(
            checks.texts,
            "A shell line that every host runs before it starts the jobs' Python, such as `module load cuda`.",
            Group.HOSTS,
            Form.TEXTS,
            metavar="LINE",
        ),
    )
    env: Mapping[str, str] = field(
        {},
        Option(
            checks.values,
            "A variable for the jobs. Its value is not written to any file.",
            Group.HOSTS,
            Form.VARIABLES,
            metavar="NAME[=VALUE]",
            schema="dict[str, Any]",
            is_secret=True,
        ),
    )
    forward_env: tuple[str, ...] = field(
        (),
        Option(
            checks.variables,
            "Names of variables of this process that the jobs get, too.",
            Group.HOSTS,
            Form.NONE,
            flags=("--env",),
        ),
    )
    warm: float = field(
        "10m",
        Option(
            checks.duration_or_zero,
            "How long a host keeps a process after a run that has imported the app's packages, so that the next run starts sooner. "
            "0: it keeps none.",
            Group.HOSTS,
            metavar="DURATION",
        ),
    )
    resources: Mapping[str, int] = field(
        {},
        Option(
            checks.resources,
            "What each job needs, unless its config says it: gpus, cpus (usually 1) and memory; on a Slurm cluster also nodes, tasks and time. A host runs as many jobs at once as it has room for. Each has CPUs and GPUs of its own.",
            Group.HOSTS,
            Form.PAIRS,
            metavar="gpus=N|cpus=N|memory=SIZE|nodes=N|tasks=N|time=DURATION",
            schema="dict[str, Any]",
        ),
    )
    code: str = chosen(
        "auto",
        "auto",
        "shared",
        group=Group.CODE,
        help="auto: the project is copied to the hosts; shared: the hosts see the same files.",
    )
    max_code_size: int = field(
        "100MiB",
        Option(
            checks.parse_size,
            "The largest total size of the code that is copied to a host.",
            Group.CODE,
            metavar="SIZE",
        ),
    )
    isolation: str = chosen(
        "auto",
        "auto",
        "fork",
        "spawn",
        "reuse",
        group=Group.CODE,
        help="How a job gets its process. fork: a copy of a process that has imported the app; spawn: a new Python, which imports it again; "
        "auto: fork, or spawn where a fork would not work; reuse: jobs share processes, for thousands of short jobs.",
    )
    outputs: bool | tuple[str, ...] = field(
        True,
        Option(
            checks.outputs,
            "Whether the output directories of jobs are copied back. A config may name patterns of the files that are; on the command line, --output does.",
            Group.RESULTS,
            Form.SWITCH,
            usual="yes",
        ),
    )
    sync_outputs: float | None = field(
        None,
        Option(
            checks.sync_interval,
            "While a job runs, copy what is new in its output directory, about this often: 30s, 5m.",
            Group.RESULTS,
            metavar="DURATION",
            usual="only when the job has ended",
        ),
    )
    sync_only: tuple[str, ...] = field(
        (),
        Option(
            checks.relative_patterns,
            "With --sync-outputs: copy only files that match while the job runs, such as `events.*`. All others come when it has ended.",
            Group.RESULTS,
            Form.TEXTS,
            metavar="PATTERN",
        ),
    )
    live: bool = field(
        False,
        Option(
            checks.flag,
            "Show what jobs print while they run.",
            Group.RESULTS,
            Form.SWITCH,
            usual="on for `run`, off for `multirun`",
        ),
    )
    timeout: float | None = field(
        None,
        Option(
            checks.optional_duration,
            "End a job after this time: 90 (seconds), 30m, 1h30m.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    grace: float = field(
        10.0,
        Option(
            checks.duration_or_zero,
            "The time that a job has to end after SIGTERM. Then it gets SIGKILL.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    hook_timeout: float = field(
        300.0,
        Option(checks.parse_duration, "The time for a job's end hooks.", Group.FAILURES, metavar="DURATION"),
    )
    shutdown_timeout: float | None = field(
        None,
        Option(
            checks.optional_duration,
            "The time that a job's process has to end after its end hooks (threads, atexit).",
            Group.FAILURES,
            metavar="DURATION",
            usual="the hook timeout",
        ),
    )
    children_timeout: float = field(
        2.0,
        Option(
            checks.duration_or_zero,
            "A job may leave processes that it started and did not wait for. They have this time to end.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    continue_sweep: bool = field(
        False,
        Option(
            checks.flag,
            "Continue the sweep in its folder: only those jobs run whose config has not completed there.",
            Group.FAILURES,
            Form.FLAG,
            flags=("--continue",),
        ),
    )
    same_code: bool = field(
        False,
        Option(
            checks.flag,
            "With --continue: refuse if the completed jobs ran other code than the present one.",
            Group.FAILURES,
            Form.FLAG,
        ),
    )
    retries: int | Mapping[str, int] = field(
        0,
        Option(
            checks.retries,
            "How often a failed job is tried again: a number, or a number for each kind of error.",
            Group.FAILURES,
            Form.COUNTS,
            metavar="N|KIND=N",
        ),
    )
    on_host_loss: str = chosen(
        "wait",
        "wait",
        "retry",
        "fail",
        group=Group.FAILURES,
        help="What is done with the jobs of a host that does not come back. wait: wait for it; retry: run them on another "
        "host; fail: count them as failed.",
    )
    host_loss_timeout: float = field(
        600.0,
        Option(
            checks.parse_duration,
            "How long to wait for a host that does not come back (not with `--on-host-loss wait`).",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    fail_fast: bool = field(
        False, Option(checks.flag, "Stop the run after the first failed job.", Group.FAILURES, Form.FLAG)
    )
    max_failures: int | None = field(
        None, Option(checks.limit, "Stop the run after N failed jobs.", Group.FAILURES, Form.NUMBER, metavar="N")
    )
    lease: float | None = field(
        None,
        Option(
            checks.optional_duration,
            "A host that has not heard from this machine for this time ends its jobs. Without this option, jobs go on.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    on_error: Mapping[str, str] = field(
        {},
        Option(
            checks.policies,
            "What an error in this callback does. warn: only a warning; fail: the job fails; abort: the run ends.",
            Group.FAILURES,
            Form.PAIRS,
            metavar="CALLBACK=warn|fail|abort",
        ),
    )
    results: str = chosen(
        "trusted",
        "trusted",
        "safe",
        "never",
        group=Group.RESULTS,
        help="Which returned values are decoded. trusted: pickles, which can run code; safe: plain data only; never: none.",
    )
    allow_types: tuple[str, ...] = field(
        (),
        Option(
            checks.types,
            "A class whose objects `--results safe` decodes besides plain data.",
            Group.RESULTS,
            Form.TEXTS,
            flags=("--allow-type",),
            metavar="MODULE.CLASS",
        ),
    )
    max_output_bytes: int = field(
        "64MiB",
        Option(
            checks.parse_size,
            "How much of a job's stdout, and of its stderr, is kept.",
            Group.RESULTS,
            metavar="SIZE",
            usual="64MiB; 4GiB for `run`",
        ),
    )
    accept_new_host_keys: bool = field(
        False,
        Option(
            checks.flag,
            "Add the keys of unknown hosts to known_hosts. Without this option, such hosts are refused.",
            Group.HOSTS,
            Form.FLAG,
        ),
    )
    ssh: str = chosen(
        "auto",
        "auto",
        "fabric",
        "openssh",
        group=Group.HOSTS,
        help="Which program logs in. fabric: Python alone, with keys; openssh: the `ssh` program, with all that it can do; auto: openssh if "
        "`launcher connect` keeps a connection, or if ssh's configuration asks for what fabric cannot do, and else fabric.",
    )
    otel: bool = field(
        False,
        Option(
            checks.flag,
            "Send a trace of the run over OTLP/HTTP when it has ended, to the address in OTEL_EXPORTER_OTLP_ENDPOINT. Jobs get TRACEPARENT. "
            "This needs the extra `otel`.",
            Group.RESULTS,
            Form.FLAG,
        ),
    )
    workdir: str | None = field(
        None,
        Option(
            checks.workdir,
            "The folder for cache and state, on hosts whose settings name none.",
            Group.HOSTS,
            metavar="DIR",
        ),
    )

    def __post_init__(self) -> None:
        for name, option in option_fields().items():
            object.__setattr__(self, name, option.check(_plain(getattr(self, name)), name))
        if self.sync_only and self.sync_outputs is None:
            raise checks.refused(
                "sync_only", "it works only with sync_outputs, which says how often files are copied (30s)"
            )
        if self.sync_outputs is not None and self.outputs is False:
            raise checks.refused(
                "sync_outputs", "it cannot be combined with outputs=False (--no-outputs); leave one of them out"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LaunchConf:
        """Make one from plain data, or from a DictConfig.

        Raises:
            ConfigError: a key is not known, or a value is not allowed.
        """
        return cls().replaced(**{str(key): value for key, value in _plain(values).items()})

    def replaced(self, **values: Any) -> LaunchConf:
        """A copy with these fields changed.

        Raises:
            ConfigError: a key is not known, or a value is not allowed.
        """
        known = [one.name for one in dataclasses.fields(self)]
        for key in values:
            if key not in known:
                near = names_like(key, known)
                hint = f"; did you mean {near[0]!r}?" if near else f"; the options are {', '.join(known)}"
                raise ConfigError(f"unknown option {key!r}{hint}")
        return dataclasses.replace(self, **values)

    @property
    def retries_by_kind(self) -> dict[str, int]:
        """How often a failed job is tried again, by kind of error; `*` is for all others."""
        if isinstance(self.retries, int):
            return {"*": self.retries, **dict.fromkeys(_NOT_RETRIED, 0)}
        return dict(self.retries)

    @property
    def shutdown_seconds(self) -> float:
        """shutdown_timeout or, if it is not set, hook_timeout: both limit code that runs after the result is known."""
        return self.hook_timeout if self.shutdown_timeout is None else self.shutdown_timeout

    @property
    def wants_environment(self) -> bool:
        """Whether any option is about environments."""
        return bool(self.environment or self.extras or self.groups)

    @property
    def max_code_bytes(self) -> int:
        """max_code_size in bytes."""
        return int(self.max_code_size)

    def variables(self) -> dict[str, str]:
        """The variables that jobs get: those forwarded from this process, and those of `env`, which win.

        Raises:
            ConfigError: a variable to forward is not set here.
        """
        missing = [name for name in self.forward_env if name not in os.environ and name not in self.env]
        if missing:
            raise checks.refused(
                "forward_env", f"{', '.join(missing)} is not set here; set it, or remove it from the list"
            )
        return {**{name: os.environ[name] for name in self.forward_env if name in os.environ}, **self.env}


def option_fields() -> dict[str, Option]:
    """The fields of LaunchConf, each with its option."""
    return {one.name: one.metadata["option"] for one in dataclasses.fields(LaunchConf)}


def options_of(options: Any, fields: Mapping[str, Any]) -> LaunchConf:
    """The options of a call from Python: a LaunchConf or None, and single fields that replace its own.

    Raises:
        ConfigError: `options` is not a LaunchConf, a field is unknown, or a value is not allowed.
    """
    if options is not None and not isinstance(options, LaunchConf):
        raise ConfigError(f"options: {shown(options)} is not a LaunchConf; you can also give its fields as keywords")
    return (options or LaunchConf()).replaced(**fields)


def _plain(value: Any) -> Any:
    """The value as plain data if it is an OmegaConf node, else the value itself."""
    if type(value).__module__.startswith("omegaconf."):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return value
