"""LaunchConf: every option of a run, in one place, for Python, the command line and Hydra.

A new option is one field of it. The command line (`launcher.cli.options`) makes its options of the fields, and
`python -m tests.hydra.schema` writes the schema of the Hydra plugin from them.

Rule: a wrong value is refused here. The error names the field and says what is allowed; for an unknown key it names the nearest
one. The command line and the plugin replace the field's name with their own name for it (see `UsageError`). Nothing else in the
project reads raw options.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from launcher.errors import ConfigError
from launcher.util.quoting import shown
from remote_agent.job import ERROR_KINDS

__all__ = ["Form", "Group", "LaunchConf", "Option", "option_fields", "options_of", "parse_duration", "parse_size"]

_Check = Callable[[Any, str], Any]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_DURATION = re.compile(rf"({_NUMBER})(ms|[smhd])")
_MAX_SECONDS = 10.0**9
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(rf"({_NUMBER})\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE | re.ASCII)
#: A larger size is a typing error, and no system accepts it.
_MAX_SIZE = 1 << 62
_MAX_COUNT = 10**9
_MAX_SHOWN = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*[.:][^\W\d]\w*(?:\.[^\W\d]\w*)*")
#: Kinds of error that another attempt would not change, or that the user asked for.
_NOT_RETRIED = ("cancelled", "config", "import")


def _refused(field: str, what: str) -> ConfigError:
    return ConfigError.of_option(field, f": {what}")


def parse_duration(value: Any, field: str, *, or_zero: bool = False) -> float:
    """Seconds from a number, or from text such as `90`, `500ms`, `30m` or `1h30m`.

    Raises:
        ConfigError: the value is neither, or is not above zero (with or_zero: is below zero).
    """
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Compare whole numbers first: a number of 400 digits does not fit into a float.
        seconds = float(min(max(value, -1), _MAX_SECONDS)) if isinstance(value, int) else value
    elif isinstance(value, str):
        text = value.strip().lower().replace(" ", "")
        if re.fullmatch(_NUMBER, text):
            seconds = float(text)
        elif text and not _DURATION.sub("", text):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    is_above = seconds is not None and (seconds > 0 or (or_zero and seconds == 0))
    if seconds is None or not is_above or seconds >= _MAX_SECONDS:
        what = "not a duration" if seconds is None else "below zero" if or_zero else "not above zero"
        what = "more than 30 years" if seconds is not None and seconds >= _MAX_SECONDS else what
        raise _refused(field, f"{shown(value)} is {what}; write seconds, or text such as 90s, 30m, 1h30m, 7d")
    return seconds


def parse_size(value: Any, field: str) -> int:
    """Bytes from a number, or from text such as `100MiB`, `100M` (the same) or `100MB` (a hundred million).

    Raises:
        ConfigError: the value is neither, or is not above zero.
    """
    size: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            number, prefix, suffix = match.groups()
            base = 1000 if (suffix or "").lower() == "b" else 1024
            size = int(float(number) * base ** (_POWERS[prefix.lower()] if prefix else 0))
    if size is None or not 0 < size <= _MAX_SIZE:
        raise _refused(field, f"{shown(value)} is not a size above zero; write bytes, or text such as 100MiB, 2GiB")
    return size


def _choice(*allowed: str) -> _Check:
    def check(value: Any, field: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            near = difflib.get_close_matches(value[:_MAX_SHOWN], allowed, 1) if isinstance(value, str) else []
            hint = f"; did you mean {near[0]}?" if near else ""
            raise _refused(field, f"{shown(value)} is not one of {', '.join(allowed)}{hint}")
        return value

    return check


def _texts(value: Any, field: str) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else (None,)
    for one in values:
        if not isinstance(one, str) or not one.strip() or "\0" in one:
            what = (
                f"{shown(one)} in the list is empty, or has a NUL character"
                if isinstance(one, str)
                else f"{shown(value)} is not a list of texts"
            )
            raise _refused(field, f"{what}")
    return values


def _hosts(value: Any, field: str) -> tuple[Any, ...]:
    given = (value,) if isinstance(value, (str, Mapping)) or value is None else value
    if not isinstance(given, Iterable):
        raise _refused(field, f"{shown(value)} is not a list of hosts")
    hosts = tuple(given)
    for one in hosts:
        is_text = isinstance(one, str) and bool(one.strip())
        # An object that has an address comes from launcher.inventory.
        if not (is_text or isinstance(one, Mapping) or hasattr(one, "address")):
            raise _refused(field, f"{shown(one)} is neither `[user@]host[:port][/slots]` nor a mapping with a name")
    return hosts


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise _refused(field, f"{shown(value)} is not true or false")
    return value


def _text(value: Any, field: str) -> str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is not None and not (isinstance(value, str) and value.strip() and not set(value) & set("\0\r\n")):
        raise _refused(field, f"{shown(value)} is not a line of text")
    return value


def _workdir(value: Any, field: str) -> str | None:
    text = _text(value, field)
    if text is not None and not text.startswith(("/", "~/")):
        raise _refused(field, f"{shown(text)} is not an absolute path, and does not begin with '~/'")
    return text


def _values(value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _refused(field, "is not a mapping of names to values")
    for name, one in value.items():
        _variable(name, field)
        # A value may be a secret, so no message shows it.
        if not isinstance(one, (str, int, float)) or isinstance(one, bool) or "\0" in str(one):
            raise _refused(f"{field}.{name}", "the value is not text; put it in quotes")
    return {str(name): str(one) for name, one in value.items()}


def _variable(name: Any, field: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(
            field, f"{shown(name)} is not the name of a variable (letters, digits and _, without a digit in front)"
        )
    return name


def _variables(value: Any, field: str) -> tuple[str, ...]:
    return tuple(_variable(name, field) for name in _texts(value, field))


def _outputs(value: Any, field: str) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    patterns = _texts(value, field)
    for pattern in patterns:
        if pattern.startswith(("/", "~")) or ".." in pattern.split("/"):
            raise _refused(
                field, f"{pattern!r} leads out of the output directory; write a relative pattern without `..`"
            )
    return patterns


def _duration(value: Any, field: str) -> float:
    return parse_duration(value, field)


def _duration_or_zero(value: Any, field: str) -> float:
    return parse_duration(value, field, or_zero=True)


def _optional_duration(value: Any, field: str) -> float | None:
    return None if value is None else parse_duration(value, field)


def _retries(value: Any, field: str) -> int | dict[str, int]:
    if not isinstance(value, Mapping):
        return _count(value, field)
    for kind, number in value.items():
        if kind != "*" and kind not in ERROR_KINDS:
            near = difflib.get_close_matches(str(kind), ERROR_KINDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the kinds are {', '.join(ERROR_KINDS)} and *"
            raise _refused(field, f"unknown kind of error {kind!r}; {hint}")
        if _count(number, f"{field}.{kind}") and kind == "cancelled":
            raise _refused(field, "a job that was cancelled is not tried again")
    return {str(kind): number for kind, number in value.items()}


def _count(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise _refused(field, f"{shown(value)} is not a whole number from 0 to {_MAX_COUNT}")
    return value


def _limit(value: Any, field: str) -> int | None:
    if value is None:
        return None
    if _count(value, field) == 0:
        raise _refused(field, "0 would stop the run before its first job; leave the option out for no limit")
    return int(value)


def _policies(value: Any, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _refused(field, "is not a mapping of callback names to warn, fail or abort")
    return {str(name): _choice("warn", "fail", "abort")(policy, f"{field}.{name}") for name, policy in value.items()}


def _types(value: Any, field: str) -> tuple[str, ...]:
    given = (value,) if isinstance(value, (str, type)) else value
    if not isinstance(given, Iterable):
        raise _refused(field, f"{shown(value)} is not a list of types")
    names = tuple(f"{one.__module__}.{one.__qualname__}" if isinstance(one, type) else one for one in given)
    for name in names:
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise _refused(field, f"{shown(name)} is not the name of a type, as module.Class or module:Class")
    return names


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


@dataclasses.dataclass(frozen=True)
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

    check: _Check
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
    option = Option(_choice(*choices), help, group, choices=choices, metavar="|".join(choices))
    return _field(default, option)


@dataclasses.dataclass(frozen=True)
class LaunchConf:
    """Every option of a run; the help of each field says what it does.

    A field holds its value as the program uses it: seconds, bytes, tuples, dicts.
    """

    hosts: tuple[Any, ...] = _field(
        (),
        Option(
            _hosts,
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
            _text,
            "A YAML file of hosts with their settings. They are added to the other hosts.",
            Group.HOSTS,
            flags=("--hosts",),
            metavar="FILE",
        ),
    )
    python: str | None = _field(
        None, Option(_text, "The Python of the jobs, on hosts that set none.", Group.HOSTS, metavar="PATH")
    )
    environment: str | None = _field(
        None,
        Option(
            _text,
            "The packages of the jobs: a uv.lock, pylock.toml, requirements.txt or script of yours, `script` for the app's own block, "
            "or `auto` for what the project has. Hosts get an environment with exactly these.",
            Group.HOSTS,
            metavar="FILE|auto|script|none",
        ),
    )
    extras: tuple[str, ...] = _field(
        (),
        Option(
            _texts,
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
            _texts,
            "Dependency groups of the project that the environment has.",
            Group.HOSTS,
            Form.TEXTS,
            flags=("--group",),
            metavar="NAME",
        ),
    )
    setup: tuple[str, ...] = _field(
        (),
        Option(
            _texts,
            "Shell lines that every host runs before that Python starts, such as `module load cuda`.",
            Group.HOSTS,
            Form.TEXTS,
            metavar="LINE",
        ),
    )
    env: Mapping[str, str] = _field(
        {},
        Option(
            _values,
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
            _variables,
            "Names of variables of this process that the jobs get, too.",
            Group.HOSTS,
            Form.NONE,
            flags=("--env",),
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
        Option(parse_size, "The largest total size of the code that is copied to a host.", Group.CODE, metavar="SIZE"),
    )
    isolation: str = _chosen(
        "auto",
        "auto",
        "fork",
        "spawn",
        group=Group.CODE,
        help="How a job gets its process. fork: from a process that has imported the app; spawn: a new Python; "
        "auto: fork, or spawn where a fork would not work.",
    )
    outputs: bool | tuple[str, ...] = _field(
        True,
        Option(
            _outputs,
            "Whether the output directories of jobs are copied back; or patterns of the files that are.",
            Group.RESULTS,
            Form.SWITCH,
            usual="yes",
        ),
    )
    live: bool = _field(
        False,
        Option(
            _flag,
            "Show what jobs print while they run.",
            Group.RESULTS,
            Form.SWITCH,
            usual="on for `run`, off for `multirun`",
        ),
    )
    timeout: float | None = _field(
        None,
        Option(
            _optional_duration,
            "End a job after this time: 90 (seconds), 30m, 1h30m.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    grace: float = _field(
        10.0,
        Option(
            _duration_or_zero,
            "The time that a job has to end after SIGTERM; then it gets SIGKILL.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    hook_timeout: float = _field(
        300.0,
        Option(_duration, "The time for a job's end hooks.", Group.FAILURES, metavar="DURATION"),
    )
    shutdown_timeout: float | None = _field(
        None,
        Option(
            _optional_duration,
            "The time that a job's process has to end after its end hooks (threads, atexit).",
            Group.FAILURES,
            metavar="DURATION",
            usual="the hook timeout",
        ),
    )
    children_timeout: float = _field(
        2.0,
        Option(
            _duration_or_zero,
            "The time that processes have to end if a job started them and did not wait for them.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    retries: int | Mapping[str, int] = _field(
        0,
        Option(
            _retries,
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
            _duration,
            "The time after which a host that does not come back is lost (for retry and fail).",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    fail_fast: bool = _field(
        False, Option(_flag, "Stop the run after the first failed job.", Group.FAILURES, Form.FLAG)
    )
    max_failures: int | None = _field(
        None, Option(_limit, "Stop the run after N failed jobs.", Group.FAILURES, Form.NUMBER, metavar="N")
    )
    lease: float | None = _field(
        None,
        Option(
            _optional_duration,
            "A host ends its jobs after this time without contact to the controller. Without this option, it never does.",
            Group.FAILURES,
            metavar="DURATION",
        ),
    )
    on_error: Mapping[str, str] = _field(
        {},
        Option(
            _policies,
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
            _types,
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
            parse_size,
            "How much of a job's stdout, and of its stderr, is kept.",
            Group.RESULTS,
            metavar="SIZE",
            usual="64MiB; 4GiB for `run`",
        ),
    )
    accept_new_host_keys: bool = _field(
        False,
        Option(
            _flag,
            "Add the keys of unknown hosts to known_hosts. Without it, such hosts are refused.",
            Group.HOSTS,
            Form.FLAG,
        ),
    )
    workdir: str | None = _field(
        None, Option(_workdir, "The folder for cache and state, on hosts that set none.", Group.HOSTS, metavar="DIR")
    )

    def __post_init__(self) -> None:
        for name, option in option_fields().items():
            object.__setattr__(self, name, option.check(_plain(getattr(self, name)), name))

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
                near = difflib.get_close_matches(key, known, 1)
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
            raise _refused("forward_env", f"{', '.join(missing)} is not set here; set it, or remove it from the list")
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
