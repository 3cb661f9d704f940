"""What a run was asked to do, as its journal stores it. It is enough for a controller in another process to resume the run.

Rule: only the names of variables are written, never their values. Whoever resumes the run must provide the values again. Everything
else is stored as hosts got it (the shared payload, the code's manifest, how the application is prepared). So an attempt that starts
after a resume starts from the same bytes as one that started before.

    meta  record    version of this layout
          setup     JSON, see `RunRecord`
          prepared  JSON: what each host's zygote is told, without its environment
          traceparent  the span of the program that started the run, if it has a trace
          ended     JSON: which end hook was entered, and which one has ended
    blobs root_config, callbacks   pickled on the controller, and loaded only there
          shared, manifest         as hosts get them
          planned/<num>/<part>     jobs from <num> on that were known before they were submitted
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.errors import JournalError, LauncherError, RunError
from launcher.hosts.host_spec import HostSpec
from launcher.pickled import Unpicklable
from launcher.util.frozen import frozen
from remote_agent.callbacks.composite import callback_entries
from remote_agent.protocol.specs.zygote import ZygoteSpec

if TYPE_CHECKING:
    from launcher.options import LaunchConf
    from launcher.runs.journal import Journal, JournalReader
    from launcher.setup.kinds.run_setup import RunSetup
    from launcher.setup.prepared import PreparedRun

__all__ = [
    "CONTINUED",
    "FORMER_KINDS",
    "RunRecord",
    "callbacks_blob",
    "planned_blobs",
    "read",
    "write_prepared",
    "write_setup",
]

VERSION = 1
#: The blob with the runs that this one continues (`launcher.setup.earlier`).
CONTINUED = "continued"
#: How many jobs a blob has.
PART = 500
#: The first version wrote the places of classes instead of the names of kinds.
FORMER_KINDS = {
    "launcher.run_setup:RunSetup": "function",
    "launcher.commands.app_setup:PlainAppSetup": "plain_app",
    "launcher.hydra_setup:HydraSetup": "hydra_app",
    "launcher.reproduce_target:PlainAgain": "job_again",
    "launcher.reproduce_target:HydraAgain": "hydra_job_again",
    "launcher.doctor:_Setup": "probe",
}
_PATHS = ("identity", "known_hosts", "ssh_config")


@frozen
class RunRecord:
    """A run as its journal describes it.

    Attributes:
        kind: the kind of its RunSetup, by the name that `launcher.setup.from_journal` has. The first version wrote `module:Class`.
        options, hosts: those of the run, without values of variables; `env` and `forward_env` are names.
        argv, cwd, sys_path, python: those of the first controller.
        zygotes: host -> the spec for its zygote, without variables; empty until the start hook has ended.
    """

    run: str
    mode: str
    task_name: str
    started: float
    kind: str
    first_num: int
    main_module: str | None
    task: str | None
    root: str | None
    config_name: str | None
    code: dict[str, Any] | None
    options: dict[str, Any]
    env: list[str]
    hosts: list[dict[str, Any]]
    fired_elsewhere: list[str]
    argv: list[str]
    cwd: str
    sys_path: list[str]
    python: list[int]
    callback_specs: dict[str, Any]
    by_value: bool
    zygotes: dict[str, ZygoteSpec]
    end_hooks: dict[str, str]

    @property
    def kind_name(self) -> str:
        """The name of its kind."""
        return FORMER_KINDS.get(self.kind, self.kind)


def write_setup(setup: RunSetup, journal: Journal) -> None:
    """Append what is known before the start hook. The caller commits."""
    options = setup.options
    snapshot = setup.snapshot
    described = {
        "kind": setup.kind,
        "first_num": setup.first_num,
        "main_module": setup.main_module,
        "task": setup.task if isinstance(setup.task, str) else None,
        "root": str(setup.root) if setup.root is not None else None,
        "config_name": setup.config_name,
        "code": None
        if snapshot is None
        else {"root": str(snapshot.root), "commit": snapshot.commit, "dirty": snapshot.dirty},
        "options": _options(options),
        "env": sorted(options.env),
        "hosts": [_host(spec) for spec in setup.hosts],
        "fired_elsewhere": sorted(setup.fired_elsewhere),
        "argv": setup.command_line(),
        "cwd": os.getcwd(),
        "sys_path": [os.path.abspath(path) for path in sys.path],
        "python": list(sys.version_info[:3]),
        "callback_specs": _plain(setup.callback_specs),
    }
    journal.put_meta(
        record=str(VERSION),
        run=setup.run_id,
        mode=setup.mode,
        task_name=setup.task_name,
        started=str(time.time()),
        hosts=json.dumps([spec.name for spec in setup.hosts]),
        main_module=setup.main_module or "",
        results=options.results,
        setup=json.dumps(described),
    )
    if setup.trace is not None and setup.trace.parent:
        journal.put_meta(traceparent=setup.traceparent)
    if snapshot is not None:
        journal.put_blob("manifest", snapshot.manifest_bytes())
    _put_locks(setup, journal)
    if setup.continues is not None:
        journal.put_blob(CONTINUED, setup.continues.to_blob(setup.kept_folders))
    # A config that cannot be pickled yet may be picklable after the start hook, and only that counts.
    _put_state(setup, journal, is_final=False)


def write_prepared(prepared: PreparedRun, journal: Journal) -> None:
    """Append the state after the start hook, and what hosts will get. The caller commits."""
    zygotes = {spec.name: prepared.zygote_of(spec).to_journal() for spec in prepared.setup.hosts}
    journal.put_meta(prepared=json.dumps({"by_value": prepared.has_values, "zygotes": zygotes}))
    journal.put_blob("shared", prepared.shared)
    # In a session, the first job brings them.
    _put_locks(prepared.setup, journal)
    _put_state(prepared.setup, journal, is_final=True)


def _put_locks(setup: RunSetup, journal: Journal) -> None:
    if setup.locks:
        from launcher.environments.lock import locks_to_bytes

        journal.put_blob("environments", locks_to_bytes(setup.locks))


def _put_state(setup: RunSetup, journal: Journal, *, is_final: bool) -> None:
    makers: dict[str, Callable[[], bytes]] = {
        "root_config": lambda: setup.pickler.dumps_here(setup.root_config),
        "callbacks": lambda: callbacks_blob(setup),
    }
    for name, make in makers.items():
        try:
            journal.put_blob(name, make())
        except Exception:
            if is_final and name == "callbacks":
                raise
            # If the root config cannot be pickled, hooks in another process get None instead.
            journal.put_blob(name, b"")


def callbacks_blob(setup: RunSetup) -> bytes:
    """Return the callbacks in their present state."""
    dumps = setup.pickler.dumps_here
    return dumps(callback_entries(setup.callbacks, dumps))


def planned_blobs(
    first: int, sources: Sequence[tuple[Any, Sequence[str]]], dumps: Callable[[Any], bytes]
) -> dict[str, bytes]:
    """Return the blobs for the jobs from number `first` on that are known before any is submitted."""
    blobs = {}
    for start in range(0, len(sources), PART):
        part = [(config, tuple(overrides)) for config, overrides in sources[start : start + PART]]
        try:
            data = dumps(part)
        except Exception:  # noqa: BLE001
            # A config that cannot be pickled makes its job fail when its turn comes. The other configs are kept.
            data = dumps([(_picklable(config, dumps), overrides) for config, overrides in part])
        blobs[f"planned/{first}/{start // PART}"] = data
    return blobs


def read_planned(reader: JournalReader, num: int, loads: Callable[[bytes], Any]) -> Iterator[tuple[Any, Sequence[str]]]:
    """Yield (config, overrides) of the planned jobs from number `num` on."""
    try:
        firsts = sorted({int(name.split("/")[1]) for name in reader.blob_names("planned/")})
    except ValueError as error:
        raise _damaged(reader.folder.parent, error) from None
    for first in firsts:
        part, is_more = max(0, num - first) // PART, True
        while is_more:
            data = reader.blob(f"planned/{first}/{part}")
            is_more = data is not None
            for index, source in enumerate(loads(data) if data else ()):
                if first + part * PART + index == num:
                    num += 1
                    yield source
            part += 1


def _picklable(config: Any, dumps: Callable[[Any], bytes]) -> Any:
    try:
        dumps(config)
    except Exception as error:  # noqa: BLE001
        return Unpicklable(f"{type(error).__name__}: {error}")
    return config


def read(reader: JournalReader) -> RunRecord:
    """Read the record of a run.

    Raises:
        RunError: the journal has no record, or one of another version.
    """
    meta = reader.meta()
    where = reader.folder.parent
    if meta.get("record") != str(VERSION) or "setup" not in meta:
        had = meta.get("record")
        raise RunError(
            f"{where}: the run's record is of version {had}; this launcher reads {VERSION}"
            if had
            else f"{where}: the run died before the journal had its setup; start it again"
        )
    prepared = reader.object("prepared")
    try:
        return _checked(
            RunRecord(
                run=meta["run"],
                mode=meta["mode"],
                task_name=meta["task_name"],
                started=reader.number("started", 0),
                by_value=bool(prepared.get("by_value")),
                zygotes=_zygotes(prepared.get("zygotes", {})),
                end_hooks=reader.object("ended"),
                **reader.object("setup"),
            )
        )
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(where, error) from None


def _zygotes(stored: Any) -> dict[str, ZygoteSpec]:
    """Return the spec that each host's zygote got."""
    if not isinstance(stored, dict):
        raise TypeError("zygotes is not an object")
    return {host: ZygoteSpec.from_journal(told) for host, told in stored.items()}


def _damaged(where: Any, error: Exception) -> JournalError:
    return JournalError(
        f"{where}: the record of the run in its journal is damaged: {type(error).__name__}: {str(error)[:300]}"
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int": lambda value: type(value) is int and 0 <= value < 1 << 63,
    "float": lambda value: isinstance(value, (int, float)),
    "bool": lambda value: isinstance(value, bool),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, Any] | None": lambda value: value is None or isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    "dict[str, ZygoteSpec]": lambda value: all(isinstance(one, ZygoteSpec) for one in value.values()),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "list[int]": lambda value: isinstance(value, list) and all(type(one) is int for one in value),
    "list[dict[str, Any]]": lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value),
}


def _checked(record: RunRecord) -> RunRecord:
    """Return the record, if each field has its type.

    Raises:
        TypeError, ValueError: a field has another type.
    """
    for one in dataclasses.fields(record):
        if not _KINDS[str(one.type)](getattr(record, one.name)):
            raise TypeError(f"{one.name} is not of type {one.type}")
    if record.mode not in ("RUN", "MULTIRUN"):
        raise ValueError(f"mode {record.mode[:50]!r}")
    code = record.code
    if code is not None and not (isinstance(code.get("root"), str) and {"commit", "dirty"} <= code.keys()):
        raise TypeError("code has no description")
    lists = [host.get("env") for host in record.hosts] + [host.get("setup") for host in record.hosts]
    for names in [*lists, record.options.get("forward_env")]:
        if not _KINDS["list[str]"](names):
            raise TypeError("names of variables, or lines of setup, are not a list of texts")
    return record


def options_of(record: RunRecord, env: Mapping[str, str]) -> LaunchConf:
    """Return the options of the run. The values of its variables come from `env`."""
    from launcher.options import LaunchConf

    values = dict(record.options)
    # It does not matter how a forwarded variable is given now, as long as it is set.
    names = [*values.pop("forward_env"), *record.env]
    values["env"] = {name: env[name] for name in names if name in env}
    try:
        return LaunchConf.from_mapping(values)
    except (LauncherError, LookupError, TypeError, ValueError) as error:
        raise _damaged(f"run {record.run}", error) from None


def hosts_of(record: RunRecord, env: Mapping[str, str]) -> list[HostSpec]:
    """Return the hosts of the run. The values of their variables come from `env`."""
    specs = []
    for stored in record.hosts:
        values = dict(stored)
        names = values.pop("env")
        values["setup"] = tuple(values["setup"])
        # A version without environments did not write this.
        values["extras"] = tuple(values.get("extras", ()))
        if isinstance(values.get("downloads"), list):
            values["downloads"] = tuple(values["downloads"])
        gpus = values.get("gpus")
        values["gpus"] = tuple(gpus) if isinstance(gpus, list) else gpus
        try:
            specs.append(HostSpec(**values, env={name: env[name] for name in names if name in env}))
        except (LookupError, TypeError, ValueError) as error:
            raise _damaged(f"run {record.run}", error) from None
    return specs


def variables(record: RunRecord) -> list[str]:
    """Return the names of all variables, whose values the journal does not have."""
    names = set(record.env) | set(record.options.get("forward_env", ()))
    for host in record.hosts:
        names |= set(host["env"])
    return sorted(names)


def _options(options: LaunchConf) -> dict[str, Any]:
    # Only the run that is started continues another one, and neither who resumes it nor who runs a job of it again.
    left_out = ("hosts", "hosts_file", "env", "continue_sweep", "same_code")
    return {
        one.name: _plain(getattr(options, one.name)) for one in dataclasses.fields(options) if one.name not in left_out
    }


def _host(spec: HostSpec) -> dict[str, Any]:
    values = {one.name: _plain(getattr(spec, one.name)) for one in dataclasses.fields(spec)}
    values["env"] = sorted(spec.env)
    for name in _PATHS:
        if values[name] is not None:
            values[name] = os.path.abspath(os.path.expanduser(values[name]))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
