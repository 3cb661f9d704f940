"""What a zygote does before its first job: it chooses packages, imports the application, and restores Hydra's state and
the callbacks.

Rule: an error in the application is reported here once, with its traceback, before any job starts.
"""

import contextlib
import importlib
import os
import random
import sys
import threading
import types
from typing import List, Optional

import remote_agent
from remote_agent.callbacks.composite import callbacks_from_entries
from remote_agent.hydra import compat
from remote_agent.hydra import state as hydra_state
from remote_agent.job import IMPORTING, PYTHON_TOO_OLD, JobError, JobReturn
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.job_process.run import ImportedAgain, Prepared, state_of
from remote_agent.job_process.seeds import SeedWatch
from remote_agent.protocol.specs.zygote import ZygoteSpec
from remote_agent.shared.failure import error_of_exception
from remote_agent.shared.versions import installed_version, version_note
from remote_agent.zygote.imports.import_watch import ImportWatch
from remote_agent.zygote.imports.packages import TooOldPython, choose_packages
from remote_agent.zygote.imports.preload import Ahead, Preloaded
from remote_agent.zygote.native_threads import unforkable_threads

__all__ = ["Unusable", "as_unusable", "check_python", "prepare", "why_not_forkable"]


#: The bundle's own `launcher` package, which only lists the controller's names. A project may have a `launcher` of its own.
_OUR_LAUNCHER = os.path.join(os.path.dirname(os.path.dirname(remote_agent.__file__)), "launcher", "__init__.py")


class Unusable(Exception):
    """No job can run here. `error` says why."""

    def __init__(self, error: JobError) -> None:
        self.error = error
        super().__init__(str(error))


def as_unusable(error: BaseException) -> Unusable:
    """Return what `prepare` raised as an Unusable. Any other exception is an import error of the application."""
    if isinstance(error, Unusable):
        return error
    failure = error_of_exception(error, "import")
    if isinstance(error, ModuleNotFoundError):
        failure.message += _next_step(error.name or "")
    return Unusable(failure)


def _next_step(missing: str) -> str:
    """Return the next step for a missing module, which is by far the most frequent problem on a new host."""
    home = getattr(sys.modules.get("launcher"), "__file__", None) or ""
    if missing.partition(".")[0] == "launcher" and os.path.realpath(home) == os.path.realpath(_OUR_LAUNCHER):
        return ": it belongs to the controller; import it below `if __name__ == '__main__':`"
    return (
        "\n    next: jobs run there under {} (Python {}.{}); install it there, or choose an environment that has it "
        "(--python PATH, or a setup line such as `conda activate NAME`)"
    ).format(sys.executable, *sys.version_info[:2])


def check_python(spec: ZygoteSpec) -> None:
    """Check that code by value comes from the same minor version of Python.

    Raises:
        Unusable: code is pickled by value, and this is another version.
    """
    controller = spec.controller
    theirs, folders, values = tuple(controller.python), tuple(sys.version_info[:2]), controller.values
    if controller.by_value and theirs and theirs != folders:
        raise Unusable(
            JobError(
                "config",
                type="PythonVersionMismatch",
                message=(
                    "the task or a callback is pickled by value{} (it was defined in a notebook, in a function or as a "
                    "lambda), so the host and the controller need the same minor version of Python; the "
                    "controller has "
                    "{}.{}, {} has {}.{} ({}). Put it into a module, or choose Python {}.{} for this host (--python)."
                ).format(
                    ": {}".format(", ".join(values)) if values else "",
                    *theirs,
                    spec.host or "this host",
                    *folders,
                    sys.executable,
                    *theirs,
                ),
            )
        )


def prepare(spec: ZygoteSpec, payload: bytes, bundle: str, preloaded: Optional[Preloaded] = None) -> Prepared:
    """Prepare everything that jobs share.

    Args:
        payload: the shared payload; empty if it is in the spec's `shared_file`.
        bundle: the unpacked bundle.
        preloaded: what was imported in advance.

    Raises:
        UnfitSpare: what was imported in advance should have come from elsewhere. Nothing else has been imported then.
        Unusable: no job can run here.
        BaseException: whatever importing the application raised.
    """
    os.umask(spec.umask)
    _set_paths(spec, bundle)
    try:
        choose_packages(bundle, spec.controller)
    except TooOldPython as error:
        raise Unusable(JobError("host", type=PYTHON_TOO_OLD, message=str(error))) from None
    if preloaded is not None:
        preloaded.check([path for path in spec.sys_path if path])
    if spec.shared_file:
        with open(spec.shared_file, "rb") as file:
            payload = file.read()
    is_hydra = bool(spec.controller.hydra)
    ahead = None if preloaded is None else preloaded.ahead
    if is_hydra and ahead is None:
        hydra_state.prepare_hydra()
    import omegaconf  # noqa: F401  (jobs need it; imported here, once)

    _put_application_first(spec)

    if ahead is None:
        random.seed()
    with ahead.seeds if ahead else SeedWatch() as seeds, hydra_state.without_start() if is_hydra else contextlib.nullcontext():
        watch = ahead.watch if ahead else ImportWatch()
        watch.go_on()
        _import_main(spec)
        imported = watch.told()
        again = _to_import_again(spec, watch, ahead) if spec.warm else None
        shared = loads(payload)
        notes = hydra_state.restore(shared.get("hydra"), loads, spec.code_root)
        task = compat.resolve_task(shared["task"])
        try:
            callbacks, built = callbacks_from_entries(shared["callbacks"], loads, compat.instantiate)
        except ValueError as error:
            failure = error_of_exception(error.__cause__ or error, "config")
            failure.message = str(error)
            raise Unusable(failure) from error
    if ahead is not None:
        spec = spec._replace(code=dict(spec.code, warm=True))
    prepared = Prepared(task, callbacks, spec)
    prepared.notes = notes + built
    prepared.imported, prepared.again = imported, again
    if is_hydra:
        installed = installed_version("hydra") or ""
        if installed != spec.controller.hydra and version_note(installed):
            prepared.notes.append(version_note(installed))
    prepared.seeds = seeds
    for index, entry in enumerate(callbacks):
        state, _ = state_of(entry.instance)
        if state is not None:
            prepared.states[index] = state
    compat.as_hydra(JobReturn())  # it makes a class that every job then has
    return prepared


def _to_import_again(spec: ZygoteSpec, watch: ImportWatch, ahead: Optional[Ahead]) -> Optional[ImportedAgain]:
    """Return what a warm interpreter for the next run imports. None if the application no longer imports a package that this process had
    imported ahead for it: then only a cold start shows what it needs.
    """
    modules = watch.installed()
    names = watch.named_in(_application_folders(spec))
    if ahead is not None and not names.issuperset(ahead.imported):
        return None
    return ImportedAgain(modules, sorted(names & {name.partition(".")[0] for name in modules}))


def _set_paths(spec: ZygoteSpec, bundle: str) -> None:
    """Set sys.path (the application's folders, the bundle, the environment) and the working directory."""
    folders = _application_folders(spec)
    rest = [path for path in sys.path if path not in folders and path != bundle]
    sys.path[:] = folders + [bundle] + rest
    if spec.cwd:
        try:
            os.chdir(spec.cwd)
        except OSError as error:
            raise Unusable(
                JobError(
                    "host",
                    type=type(error).__name__,
                    message="the folder that jobs would run in, {}, cannot be entered on {}: {}".format(
                        spec.cwd, spec.host or "this host", error.strerror
                    ),
                )
            ) from error


def _put_application_first(spec: ZygoteSpec) -> None:
    """Put the application's folders first again, and set `sys.argv`, as Python does when it starts a script.

    What must come from the bundle is imported by now, or comes after them.
    """
    folders = _application_folders(spec)
    sys.path[:] = folders + [path for path in sys.path if path not in folders]
    argv = list(spec.argv)
    if not argv:
        return
    if spec.argv0_is_absolute:
        argv[0] = os.path.normpath(os.path.join(spec.cwd or os.getcwd(), argv[0]))
    sys.argv[:] = argv
    if hasattr(sys, "orig_argv"):  # from Python 3.10 on; programs that restart themselves read it
        start = ["-m", str(spec.main_module)] if spec.main_is_module else argv[:1]
        sys.orig_argv[:] = [sys.executable, *start, *argv[1:]]


def _application_folders(spec: ZygoteSpec) -> List[str]:
    return [path for path in spec.sys_path if path]


def _import_main(spec: ZygoteSpec) -> None:
    """Import the application under its own name and as `__main__`, for configs and pickles with that name.

    Like `__main__` of a script, it has no `__spec__` then. So a library that starts the script again (such as
    Lightning, for its other processes) uses `sys.argv[0]`, and `-m` only for what was started with it. Without a
    script, `__main__` is empty, as in a new notebook.
    """
    name = spec.main_module
    if not name:
        sys.modules["__main__"] = types.ModuleType("__main__")
        return
    # A script without a `__main__` guard would start the run again here. `launcher` checks this variable.
    os.environ[IMPORTING] = name
    try:
        main = importlib.import_module(name)
    finally:
        del os.environ[IMPORTING]
    if not spec.main_is_module:
        main.__spec__, main.__package__ = None, None
    sys.modules["__main__"] = main


def why_not_forkable() -> str:
    """Return what the application's import has started that does not survive a fork; empty if nothing."""
    reasons: List[str] = []
    main = threading.main_thread()
    threads = [thread.name for thread in threading.enumerate() if thread is not main]
    if threads:
        reasons.append("started Python threads ({})".format(", ".join(threads[:5])))
    native = unforkable_threads(1 + len(threads))
    if native:
        reasons.append(native)
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if (cuda is not None and cuda.is_initialized()) or _has_open_gpu():
        reasons.append("initialised CUDA")
    return " and ".join(reasons)


def _has_open_gpu() -> bool:
    try:
        fds = os.listdir("/proc/self/fd")
    except OSError:  # not Linux, so the loaded modules are checked instead
        return False
    for fd in fds:
        try:
            if os.readlink("/proc/self/fd/" + fd).startswith("/dev/nvidia"):
                return True
        except OSError:
            continue  # the descriptor of the listing itself is closed by now
    return False
