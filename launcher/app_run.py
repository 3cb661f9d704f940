"""A run of an application as the command line names it: its composition, its setup, and how its jobs are driven.

Rule: a job gets exactly the config that Hydra composes, composed when the job is due. A Hydra app gets it with the whole
`hydra` node, a plain function without it. What can be refused is refused before anything is sent to a host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from launcher.code.application import known_imports
from launcher.code.application.application import Application, is_class_in_text, load_application, read_application
from launcher.code.application.foreign_imports import is_foreign_failure
from launcher.code.application.task import as_main
from launcher.code.files.snapshot import Snapshot, take
from launcher.errors import ConfigError, LauncherError, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import host_specs
from launcher.options import LaunchConf
from launcher.runs.folder import Naming
from launcher.setup.callbacks import build_callbacks, callback_nodes, only_on_hosts
from launcher.setup.import_memory import import_key, why_import_here
from launcher.setup.kinds.plain_app import PlainAppSetup, script_of_app
from launcher.setup.kinds.run_setup import RunSetup
from launcher.util.frozen import frozen
from remote_agent.by_reference import resolve
from remote_agent.callbacks.composite import Callbacks
from remote_agent.config.nodes import literal

if TYPE_CHECKING:
    from launcher.config.hydra import HydraComposition
    from launcher.session.session import Session

__all__ = ["AppRun", "load_callback", "prepare", "prepare_named"]


@frozen
class AppRun:
    """A run of an application, checked.

    Attributes:
        setup: what the session needs.
        total: the number of jobs; None if a sweeper decides it during the run.
        jobs: makes the overrides of each job, in order; None if a sweeper decides them during the run.
        drive: submits the jobs to an open session and waits for them; when detaching, it waits until the hosts have them.
        close: restores Hydra's global state.
    """

    setup: RunSetup
    total: int | None
    jobs: Callable[[], Iterable[Sequence[str]]] | None
    drive: Callable[[Session, bool], None]
    close: Callable[[], None]

    def check_detachable(self) -> None:
        """Refuse to leave a run whose jobs depend on the results of earlier ones.

        Raises:
            UsageError: a sweeper decides the jobs during the run.
        """
        if self.jobs is None:
            raise UsageError(
                "--detach: the sweeper of this app needs the results of its jobs to choose the next ones; run it without --detach"
            )


def prepare(
    mode: str,
    app: Application,
    overrides: Sequence[str],
    *,
    options: LaunchConf,
    usual: Mapping[str, Any] | None = None,
    callbacks: Iterable[Any] = (),
    folder: str | None = None,
    config_dir: str | None = None,
    config_name: str | None = None,
    taken: Snapshot | None = None,
    why_imported: str = "",
) -> AppRun:
    """Compose and check everything before anything is sent. A sweep may continue the one in its folder.

    Args:
        mode: `RUN` or `MULTIRUN`.
        usual: values for options that still have their default: neither the user nor the app's config has set them.
        callbacks: they are added after those of the config.
        folder: the run's local folder; None: the one that Hydra chooses.
        taken: the snapshot of the project, if there is one already.
        why_imported: what in its import is needed here, for a note.

    Raises:
        UsageError: naming what is wrong.
    """
    from launcher.config.compose import compose

    for option, text in (("--folder", folder), ("--config-dir", config_dir), ("--config-name", config_name)):
        if text is not None and (not text.strip() or "\0" in text):
            raise UsageError(f"{option}: {text!r} is not a usable value; give one, or leave the option out")
    if folder is not None and (app.is_hydra or config_dir is not None or config_name is not None):
        key = "hydra.run.dir" if mode == "RUN" else "hydra.sweep.dir"
        overrides = [*overrides, f"{key}={_quoted(str(Path(folder).absolute()))}"]
    opened = contextlib.ExitStack()
    try:
        opened.enter_context(as_main(app.module_name))
        composition = opened.enter_context(
            compose(app, overrides, multirun=mode == "MULTIRUN", config_dir=config_dir, config_name=config_name)
        )
        composition.check()
        if composition.is_hydra:
            from launcher.config.job_config import without_secrets
            from launcher.setup.kinds.hydra import with_configured

            config = cast("HydraComposition", composition).config
            options = with_configured(options, config)
            without_secrets(config)
        default = LaunchConf()
        usual = {
            name: value for name, value in (usual or {}).items() if getattr(options, name) == getattr(default, name)
        }
        options = options.replaced(**usual)
        if app.is_read and app.failure is None:
            _check_known(app, options, composition.config, taken)
        composite = build_callbacks(
            callback_nodes(composition.config),
            callbacks,
            options,
            is_missing=lambda error: is_foreign_failure(error, app.root),
        )
        if composition.is_hydra:
            app_run = _hydra_run(app, cast("HydraComposition", composition), composite, options, opened.close, taken)
            return _continued(dataclasses.replace(app_run, setup=_completed(app, app_run.setup, why_imported)))
        plain = PlainAppSetup.of(app, composition, composite, options, folder, overrides, taken)

        def drive(session: Session, detach: bool) -> None:
            # A list, so that the journal has all of it before the first job is sent.
            session.drive([(None, one) for one in composition.job_overrides()], detach=detach)

        setup = _completed(app, plain, why_imported)
        return _continued(AppRun(setup, composition.count, composition.job_overrides, drive, opened.close))
    except ConfigError as error:
        opened.close()
        if app.failure is None:
            raise
        raise ConfigError(
            f"{error}\nThe import of the application may register what is missing there, and it fails here: {app.failure}"
        ) from error
    except BaseException:
        opened.close()
        raise


def _continued(app_run: AppRun) -> AppRun:
    """The run, which continues earlier ones if that was asked for."""
    options = app_run.setup.options
    if not (options.continue_sweep or options.same_code):
        return app_run
    from launcher.setup.earlier import continued

    sources = None if app_run.jobs is None else ((None, one) for one in app_run.jobs())
    return dataclasses.replace(app_run, setup=continued(app_run.setup, sources))


class _ImportHereError(UsageError):
    """The application has to be imported here first. `why` says what of it is needed; empty if that is not known."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def prepare_named(
    mode: str, text: str, overrides: Sequence[str], *, options: LaunchConf, callbacks: Sequence[str] = (), **how: Any
) -> AppRun:
    """Prepare an application and callbacks as the command line names them.

    The application is not imported here if all hosts are known to import this same code without anything that composing needs. Whatever
    goes wrong then may be for want of the import, so the application is imported, and everything is done again.

    Args:
        how: as for `prepare`.

    Raises:
        UsageError: naming what is wrong.
    """
    why = ""
    known = _known_by_text(text, options)
    if known is not None:
        app, taken = known
        try:
            loaded = [load_callback(one, app.root) for one in callbacks]
            return prepare(mode, app, overrides, options=options, callbacks=loaded, taken=taken, **how)
        except _ImportHereError as needed:
            why = needed.why
        except UsageError:
            why = _told_need(app, options, taken) or "may register what a part of the config needs"
    app = load_application(text, may_read=True)
    loaded = [load_callback(one, app.root) for one in callbacks]
    return prepare(mode, app, overrides, options=options, callbacks=loaded, why_imported=why, **how)


def _known_by_text(text: str, options: LaunchConf) -> tuple[Application, Snapshot] | None:
    """The application as its text has it, with the snapshot of its project; None if nothing is known of that code."""
    app = read_application(text) if known_imports.is_used() else None
    if app is None or (not app.is_hydra and not options.hosts and options.hosts_file is None):
        return None
    try:
        taken = take(app.project, max_bytes=options.max_code_bytes)
    except LauncherError:
        return None
    return (app, taken) if known_imports.has_any(taken) else None


def _told_need(app: Application, options: LaunchConf, taken: Snapshot) -> str:
    """What hosts told of the import that may be needed here; empty for nothing, and where the config names the hosts."""
    keys = [_key_of(app, spec, options, taken) for spec in host_specs(None, options)]
    return why_import_here(keys, uses_process=False) or ""


def _check_known(app: Application, options: LaunchConf, config: Any, taken: Snapshot | None) -> None:
    """Check that all hosts are known to import the application without anything that is needed here.

    Raises:
        _ImportHereError: they are not, or they need it.
    """
    keys = [_key_of(app, spec, options, taken) for spec in host_specs(None, options)]
    own = config.get("hydra")
    uses_process = own is not None and _reads_variables(own)
    why = why_import_here(keys, uses_process=uses_process)
    if why is not None:
        raise _ImportHereError(why)


def _reads_variables(node: Any) -> bool:
    from launcher.config.interpolations import mentions

    return mentions(node, "oc.env")


def _key_of(app: Application, spec: HostSpec, options: LaunchConf, taken: Snapshot | None) -> str | None:
    if taken is None:
        return None
    return import_key(spec, options, taken, app.module_name, app.project, app.file)


def _completed(app: Application, setup: RunSetup, why_imported: str) -> RunSetup:
    """The setup with what is to be kept of the application's import, and a note of why it was imported here.

    Raises:
        UsageError: it cannot be imported here, and all jobs would run in this same environment.
    """
    _refuse_this_machine(app, setup)
    keys = {spec.name: _key_of(app, spec, setup.options, setup.snapshot) for spec in setup.hosts}
    notes = (f"{app.named} was imported here, too, because its import {why_imported}",) if why_imported else ()
    return dataclasses.replace(
        setup, notes=notes, import_keys={name: key for name, key in keys.items() if key is not None}
    )


def _refuse_this_machine(app: Application, setup: RunSetup) -> None:
    """Refuse an application that cannot be imported here, if all its jobs would run in this same environment.

    Raises:
        UsageError: the one of the import.
    """
    options = setup.options
    anywhere = bool(options.python or options.setup or options.wants_environment or options.variables())
    if app.failure is None or anywhere:
        return
    if not any(not spec.is_local or spec.python or spec.setup or spec.env or spec.environment for spec in setup.hosts):
        raise app.failure


def _hydra_run(
    app: Application,
    composition: HydraComposition,
    composite: Callbacks,
    options: LaunchConf,
    close: Callable[[], None],
    taken: Snapshot | None,
) -> AppRun:
    from launcher.setup.kinds.hydra import HydraSetup, naming_of

    def composed(overrides: Sequence[str], num: int, job_id: str) -> Any:
        return composition.job_config(num, overrides, job_id)

    mode = composition.mode
    naming = naming_of(mode, composition.config)
    setup = HydraSetup.of(
        mode,
        app.task,
        composition.config,
        compose=composed,
        callbacks=composite,
        options=options,
        script=script_of_app(app),
        # A package is imported from its parent folder.
        root=app.root if "." in app.module_name else None,
        # This run has not written there yet, so what is there belongs to another run.
        naming=Naming.NEW if naming is Naming.MOMENT else naming,
        text_of=app if app.is_read else None,
        taken=taken,
    )
    is_basic = mode == "RUN" or composition.is_basic_sweeper
    if mode == "MULTIRUN" and is_basic:
        setup.check_sizes(composition.job_overrides())

    def jobs() -> Iterable[Sequence[str]]:
        return [()] if mode == "RUN" else composition.job_overrides()

    def drive(session: Session, detach: bool) -> None:
        if not is_basic:
            _drive_sweeper(composition, session)
            return
        if mode == "MULTIRUN":
            composition.save_multirun(session.folder)
        session.drive([(None, one) for one in jobs()], detach=detach)

    total = 1 if mode == "RUN" else composition.count if is_basic else None
    return AppRun(setup, total, jobs if is_basic else None, drive, close)


def _drive_sweeper(composition: HydraComposition, session: Session) -> None:
    """Let the app's own sweeper decide which jobs there are, batch by batch."""
    from hydra._internal.callbacks import Callbacks as HydraCallbacks
    from hydra.plugins.launcher import Launcher

    class _SessionLauncher(Launcher):
        """The launcher that the sweeper gets in place of Hydra's own. The session fires the hooks."""

        def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
            """Do nothing: everything is set up."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
            if initial_job_idx != session.next_num:
                raise LauncherError(
                    f"the sweeper starts a batch at job {initial_job_idx}, after {session.next_num} jobs; "
                    "start the app with `python my_app.py -m hydra/launcher=remote ...`"
                )
            session.drive([(None, list(overrides)) for overrides in job_overrides], None)
            return [session.load(initial_job_idx + index) for index in range(len(job_overrides))]

    composition.sweep_with(_SessionLauncher(), HydraCallbacks())


def _quoted(value: str) -> str:
    """A path as a quoted value of Hydra's override grammar, without interpolations. There, a backslash escapes only a quote."""
    value = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), literal(value))
    return f"'{value}'"


def load_callback(text: str, root: Path | None = None) -> Any:
    """Make the callback that `module:Class` or `module:object` names; a class is called without arguments.

    Args:
        root: the folder that is first on `sys.path` for the application. If the callback cannot be imported here for want of something
            that is not the project's, and its text has the class, only hosts build it: an Entry without an instance.

    Raises:
        UsageError: it does not exist, or it cannot be made.
    """
    module, colon, qualname = text.partition(":")
    if not (module and colon and qualname):
        raise UsageError(f"--callback {text!r}: write it as module:Class")
    try:
        value = resolve(module, qualname)
        return value() if isinstance(value, type) else value
    except Exception as error:
        if root is not None and is_foreign_failure(error, root) and is_class_in_text(module, qualname):
            return only_on_hosts(qualname, {"_target_": f"{module}.{qualname}"}, None, error)
        raise UsageError(f"--callback {text}: {type(error).__name__}: {error}") from error
