"""LaunchConf: every option of a run, in one place, for Python, the command line and Hydra.

A new option is one field of it. The command line (`launcher.cli.options`) makes its options of the fields, and
`python -m tests.hydra.schema` writes the schema of the Hydra plugin from them.

Rule: a wrong value is refused here (`launcher.option_checks`). The error names the field and says what is allowed; for an unknown key it names the nearest
one. The command line and the plugin replace the field's name with their own name for it (see `UsageError`). Nothing else in the
project reads raw options.
"""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping
from typing import Any

from launcher import option_checks as checks
from launcher.errors import ConfigError
from launcher.util.frozen import frozen
from launcher.util.near import names_like
from launcher.util.quoting import shown

__all__ = ["Form", "Group", "LaunchConf", "Option", "option_fields", "options_of"]

#: Kinds of error that another attempt would not change, or that the user asked for.
_NOT_RETRIED = ("cancelled", "config", "import")


class Group(enum.IntEnum):
    """What an option is about; the command line lists the options in this order."""

    HOSTS = 1
    CODE = 2
    RESULTS = 3
    FAILURES = 4


class Form(enum.Enum):
    """How a field is written on the command line."""

    #: One text, which the field's check reads.
    TEXT = enum.auto()
    #: A whole number.
    NUMBER = enum.auto()
    #: `--name` sets true.
    FLAG = enum.auto()
    #: `--name` sets true, `--no-name` false.
    SWITCH = enum.auto()
    #: One text for each time that the option is given.
    TEXTS = enum.auto()
    #: `KEY=VALUE` for each time.
    PAIRS = enum.auto()
    #: `N`, or `KEY=N` for each time.
    COUNTS = enum.auto()
    #: `NAME=VALUE` for each time; `NAME` alone goes to `forward_env`.
    VARIABLES = enum.auto()
    #: No option of its own.
    NONE = enum.auto()


@frozen
class Option:
    """What Python, the command line and Hydra need to know of a field of LaunchConf.

    Attributes:
        check: gives the value as the program uses it, or refuses it.
        help: what the option does, in one or two sentences.
        flags: its names on the command line; empty: `--` and the name of the field.
        metavar: what stands for its value there.
        choices: all values that are allowed; empty: the check knows.
        schema: its type in Hydra's schema; empty: the one that follows from the field's type.
        usual: what the help says of the default, where the value alone does not say it.
        is_secret: no message and no file has its value.
    """

    check: checks.Check
    help: str
    group: Group
    form: Form = Form.TEXT
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    schema: str = ""
    usual: str = ""
    is_secret: bool = False


def _field(default: Any, option: Option) -> Any:
    metadata = {"option": option}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, repr=not option.is_secret, metadata=metadata)
    return dataclasses.field(default=default, repr=not option.is_secret, metadata=metadata)


def _chosen(default: str, *choices: str, group: Group, help: str) -> Any:
    """A field that is one of a few words."""
    option = Option(checks.choice(*choices), help, group, choices=choices, metavar="|".join(choices))
    return _field(default, option)


@dataclasses.dataclass(frozen=True)
class LaunchConf:
    """Every option of a run; the help of each field says what it does.

    A field holds its value as the program uses it: seconds, bytes, tuples, dicts.
    """

    hosts: tuple[Any, ...] = _field(
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
    hosts_file: str | None = _field(
        None,
        Option(
            checks.text,
            "A YAML file of hosts with their settings. They are added to the other hosts.",
            Group.HOSTS,
            flags=("--hosts",),
            metavar="FILE",
        ),
    )
    python: str | None = _field(
        None,
        Option(
            checks.text,
            "The Python that runs the jobs, on hosts whose settings name none.",
            Group.HOSTS,
            metavar="PATH",
        ),
    )
    environment: str | None = _field(
        None,
        Option(
            checks.text,
            "The packages of the jobs: a uv.lock, pylock.toml, requirements.txt or script of yours, `script` for the app's own block, "
            "or `auto` for what the project has. Hosts get an environment with exactly these.",
            Group.HOSTS,
            metavar="FILE|auto|script|none",
        ),
    )
    extras: tuple[str, ...] = _field(
        (),
        Option(
            checks.texts,
            "Extras of the project that the environment has.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--extra",),
            metavar="NAME",
        ),
    )
    groups: tuple[str, ...] = _field(
        (),
        Option(
            checks.texts,
            "Dependency groups of the project that the environment has.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--group",),
            metavar="NAME",
        ),
    )
    downloads: bool | tuple[str, ...] = _field(
        False,
        Option(
            checks.downloads,
            "Whether hosts may fetch packages and a Python from their own internet, where the address needs no credential; or the beginnings of the "
            "addresses that they may ask.",
            Group.HOSTS,
            Form.SWITCH,
            usual="no",
        ),
    )
    environment_timeout: float = _field(
        1800.0,
        Option(
            checks.parse_duration,
            "The time for each step of making an environment: resolving, building a wheel, installing.",
            Group.HOSTS,
            metavar="DURATION",
        ),
    )
    environments_budget: int = _field(
        "50GiB",
        Option(
            checks.parse_size,
            "How much disk environments may take on a host. Before another one is built, those that no job uses are removed, the longest unused first.",
            Group.HOSTS,
            metavar="SIZE",
        ),
    )
    setup: tuple[str, ...] = _field(
        (),
        Option(
            checks.texts,
            "Shell lines that every host runs before it starts the jobs' Python, such as `module load cuda`.",
            Group.HOSTS,
            Form.TEXTS,
            metavar="LINE",
        ),
    )
    env: Mapping[str, str] = _field(
        {},
        Option(
            checks.values,
            "Variables for the jobs. Their values are not written to any file.",
            Group.HOSTS,
            Form.VARIABLES,
            metavar="NAME[=VALUE]",
            schema="dict[str, Any]",
            is_secret=True,
        ),
    )
    forward_env: tuple[str, ...] = _field(
        (),
        Option(
            checks.variables,
            "Names of variables of this process that the jobs get, too.",
            Group.HOSTS,
            Form.NONE,
            flags=("--env",),
        ),
    )
    warm: float = _field(
        "10m",
        Option(
            checks.duration_or_zero,
            "How long a host keeps an interpreter after a run, with the packages of the app imported, so that the next run starts at once. "
            "0: not at all.",
            Group.HOSTS,
            metavar="DURATION",
        ),
    )
    resources: Mapping[str, int] = _field(
        {},
        Option(
            checks.resources,
            "What a job needs that does not say it itself: gpus, cpus (1 if it is not given) and memory. A host runs as many jobs at once as fit, each with CPUs and GPUs of its own.",
            Group.HOSTS,
            Form.PAIRS,
            metavar="gpus=N|cpus=N|memory=SIZE",
            schema="dict[str, Any]",
        ),
    )
    code: str = _chosen(
        "auto",
        "auto",
        "shared",
        group=Group.CODE,
        help="auto: the project is copied to the hosts; shared: the hosts see the same files.",
    )
    max_code_size: int = _field(
        "100MiB",
        Option(
            checks.parse_size,
            "The largest total size of the code that is copied to a host.",
            Group.CODE,
            metavar="SIZE",
        ),
    )
    isolation: str = _chosen(
        "auto",
        "auto",
        "fork",
        "spawn",
        "reuse",
        group=Group.CODE,
        help="How a job gets its process. fork: from a process that has imported the app; spawn: a new Python; "
        "auto: fork, or spawn where a fork would not work; reuse: jobs share processes, for thousands of short jobs.",
    )
    outputs: bool | tuple[str, ...] = _field(
        True,
        Option(
            checks.outputs,
            "Whether the output directories of jobs are copied back; or patterns of the files that are.",
            Group.RESULTS,
            Form.SWITCH,
            usual="yes",
        ),
    )
    sync_outputs: float | None = _field(
        None,
        Option(
            checks.sync_interval,
            "While a job runs, copy what is new in its output directory about this often: 30s, 5m.",
            Group.RESULTS,
            metavar="DURATION",
            usual="only when the job has ended",
        ),
    )
    sync_only: tuple[str, ...] = _field(
        (),
        Option(
            checks.relative_patterns,
            "With --sync-outputs: copy only files that match while the job runs, such as `events.*`. All others come when it has ended.",
            Group.RESULTS,
            Form.TEXTS,
            metavar="PATTERN",
        ),
    )
    live: bool = _field(
        False,
        Option(
            checks.flag,
            "Show what jobs print while they run.",
            Group.RESULTS,
            Form.SWITCH,
            usual="on for `run`, off for `multirun`",
        ),
    )
    timeout: float | None = _field(
        None,
        Option(
            checks.optional_duration,
            "End a job after this time: 90 (seconds), 30m, 1h30m.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    grace: float = _field(
        10.0,
        Option(
            checks.duration_or_zero,
            "The time that a job has to end after SIGTERM; then it gets SIGKILL.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    hook_timeout: float = _field(
        300.0,
        Option(checks.parse_duration, "The time for a job's end hooks.", Group.FAILURES, metavar="DURATION"),
    )
    shutdown_timeout: float | None = _field(
        None,
        Option(
            checks.optional_duration,
            "The time that a job's process has to end after its end hooks (threads, atexit).",
            Group.FAILURES,
            metavar="DURATION",
            usual="the hook timeout",
        ),
    )
    children_timeout: float = _field(
        2.0,
        Option(
            checks.duration_or_zero,
            "The time that processes have to end if a job started them and did not wait for them.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    continue_sweep: bool = _field(
        False,
        Option(
            checks.flag,
            "Continue the sweep in its folder: a job does not run again if one with the same config has completed there.",
            Group.FAILURES,
            Form.FLAG,
            flags=("--continue",),
        ),
    )
    same_code: bool = _field(
        False,
        Option(
            checks.flag,
            "With --continue: refuse to take over jobs that ran other code than that of now.",
            Group.FAILURES,
            Form.FLAG,
        ),
    )
    retries: int | Mapping[str, int] = _field(
        0,
        Option(
            checks.retries,
            "How often a failed job is tried again: a number, or a number for each kind of error.",
            Group.FAILURES,
            Form.COUNTS,
            metavar="N|KIND=N",
        ),
    )
    on_host_loss: str = _chosen(
        "wait",
        "wait",
        "retry",
        "fail",
        group=Group.FAILURES,
        help="What is done with the jobs of a host that does not come back. wait: wait for it; retry: run them on another "
        "host; fail: they have failed.",
    )
    host_loss_timeout: float = _field(
        600.0,
        Option(
            checks.parse_duration,
            "The time after which a host that does not come back is lost (for retry and fail).",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    fail_fast: bool = _field(
        False, Option(checks.flag, "Stop the run after the first failed job.", Group.FAILURES, Form.FLAG)
    )
    max_failures: int | None = _field(
        None, Option(checks.limit, "Stop the run after N failed jobs.", Group.FAILURES, Form.NUMBER, metavar="N")
    )
    lease: float | None = _field(
        None,
        Option(
            checks.optional_duration,
            "A host ends its jobs after this time without contact to the controller. Without this option, it never does.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    on_error: Mapping[str, str] = _field(
        {},
        Option(
            checks.policies,
            "What an error in a callback does: warn (only a warning), fail (its job fails), abort (the run ends).",
            Group.FAILURES,
            Form.PAIRS,
            metavar="CALLBACK=warn|fail|abort",
        ),
    )
    results: str = _chosen(
        "trusted",
        "trusted",
        "safe",
        "never",
        group=Group.RESULTS,
        help="Which returned values are decoded. trusted: pickles, which can run code; safe: plain data only; never: none.",
    )
    allow_types: tuple[str, ...] = _field(
        (),
        Option(
            checks.types,
            "Classes whose objects `safe` decodes besides plain data.",
            Group.RESULTS,
            Form.TEXTS,
            flags=("--allow-type",),
            metavar="MODULE.CLASS",
        ),
    )
    max_output_bytes: int = _field(
        "64MiB",
        Option(
            checks.parse_size,
            "How much of a job's stdout, and of its stderr, is kept.",
            Group.RESULTS,
            metavar="SIZE",
            usual="64MiB; 4GiB for `run`",
        ),
    )
    accept_new_host_keys: bool = _field(
        False,
        Option(
            checks.flag,
            "Add the keys of unknown hosts to known_hosts. Without it, such hosts are refused.",
            Group.HOSTS,
            Form.FLAG,
        ),
    )
    ssh: str = _chosen(
        "auto",
        "auto",
        "fabric",
        "openssh",
        group=Group.HOSTS,
        help="Which program logs in. fabric: Python alone, with keys; openssh: the `ssh` program, with all that it can do; auto: openssh where "
        "`launcher connect` keeps a connection, or where ssh's configuration asks for what fabric cannot do.",
    )
    otel: bool = _field(
        False,
        Option(
            checks.flag,
            "Send a trace of the run over OTLP/HTTP when it has ended, to the address in OTEL_EXPORTER_OTLP_ENDPOINT. Jobs get TRACEPARENT. "
            "This needs the extra `otel`.",
            Group.RESULTS,
            Form.FLAG,
        ),
    )
    workdir: str | None = _field(
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
            raise checks.refused("sync_only", "nothing is copied while jobs run; say how often, too (sync_outputs)")
        if self.sync_outputs is not None and self.outputs is False:
            raise checks.refused("sync_outputs", "no outputs are copied back, as asked; leave one of the two out")

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
        known = [field.name for field in dataclasses.fields(self)]
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
    return {field.name: field.metadata["option"] for field in dataclasses.fields(LaunchConf)}


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
