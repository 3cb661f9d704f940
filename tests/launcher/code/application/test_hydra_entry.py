"""Finds the Hydra app of a script whose decorator or guard hides the arguments for Hydra.

No task is ever called without its config.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from launcher.code.application.application import Application, load_application
from launcher.config.compose import compose
from launcher.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a config, for the test. What is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    (tmp_path / "conf.yaml").write_text("lr: 0.5\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "") or ""):
            del sys.modules[name]


def _load(text: str, name: str = "hidden.py") -> Application:
    file, _, _ = name.partition(":")
    Path(file).write_text(textwrap.dedent(text))
    return load_application(name)


def _call(app: Application, *overrides: str) -> Any:
    """Return what the task returns for a job's config."""
    with compose(app, overrides) as composition:
        config = composition.config.copy()
    return app.task(config)


_ZEN = """
    from hydra_zen import store, zen

    def task(lr, power: int = 2):
        return lr ** power

    """
_AS_HYDRA_RUNS_IT = {
    "zen below the guard": _ZEN
    + """
    if __name__ == "__main__":
        zen(task).hydra_main(config_name="conf", config_path=".", version_base="1.3")
    """,
    "zen below the guard, in a function": _ZEN
    + """
    def main():
        zen(task).hydra_main(config_name="conf", config_path=".", version_base="1.3")

    if "__main__" == __name__:
        main()
    """,
    "zen without a guard": _ZEN
    + """
    zen(task).hydra_main(config_name="conf", config_path=".", version_base="1.3")
    """,
    "zen with its own store": _ZEN
    + """
    if __name__ == "__main__":
        store({"lr": 0.5}, name="conf")
        store.add_to_hydra_store(overwrite_ok=True)
        zen(task).hydra_main(config_name="conf", config_path=None, version_base="1.3")
        raise RuntimeError("what stands behind the start of Hydra was reached")
    """,
    "hydra.main around zen": _ZEN
    + """
    import hydra
    main = hydra.main(config_name="conf", config_path=".", version_base="1.3")(zen(task))
    """,
    "hydra.main as a function, below the guard": """
    from hydra import main as start

    def task(cfg):
        return cfg.lr ** 2

    if __name__ == "__main__":
        start(config_name="conf", config_path=".", version_base="1.3")(task)()
    """,
    "a task of another module": """
    import statistics
    import hydra

    def power(cfg):
        return cfg.lr ** 2

    power.__module__ = "statistics"
    main = hydra.main(config_name="conf", config_path=".", version_base="1.3")(power)
    """,
    "a decorator around hydra.main that does not say so": """
    import hydra

    def timed(function):
        def inner(*args):
            return function(*args)
        return inner

    @timed
    @hydra.main(config_name="conf", config_path=".", version_base="1.3")
    def task(cfg):
        return cfg.lr ** 2
    """,
    "an object around hydra.main": """
    import functools
    import hydra

    class Command:
        def __init__(self, function):
            self.function = function

        def __call__(self):
            return self.function()

    @functools.partial
    @Command
    @hydra.main(config_name="conf", config_path=".", version_base="1.3")
    def task(cfg):
        return cfg.lr ** 2
    """,
    "a decorator that runs Hydra itself": """
    import functools
    from hydra._internal.utils import _run_hydra, get_args_parser

    def runner(config_path, config_name):
        def decorate(task_function):
            @functools.wraps(task_function)
            def inner(cfg_passthrough=None):
                if cfg_passthrough is not None:
                    return task_function(cfg_passthrough)
                parser = get_args_parser()
                _run_hydra(
                    args=parser.parse_args(), args_parser=parser, task_function=task_function,
                    config_path=config_path, config_name=config_name,
                )
            return inner
        return decorate

    @runner(".", "conf")
    def task(cfg):
        return cfg.lr ** 2
    """,
}


#: One with zen, one with Hydra's own decorator, and one with neither.
_QUICK = ("zen below the guard", "hydra.main as a function, below the guard", "a decorator that runs Hydra itself")


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=[] if name in _QUICK else pytest.mark.slow) for name in _AS_HYDRA_RUNS_IT],
)
def test_a_hidden_app_gets_the_config_from_hydra(folder: Path, script: str) -> None:
    """It gets the same config as with `python hidden.py`, by path and name, with overrides."""
    app = _load(_AS_HYDRA_RUNS_IT[script])
    assert app.is_hydra
    assert app.config_name == "conf"
    assert _call(app) == 0.25
    assert _call(app, "lr=3") == 9


def test_the_function_may_be_named(folder: Path) -> None:
    """`hidden.py:task` is the same application, even though the module has a plain function of that name."""
    app = _load(_AS_HYDRA_RUNS_IT["zen below the guard"], "hidden.py:task")
    assert app.is_hydra
    assert _call(app) == 0.25


def test_an_app_that_another_module_decorates(folder: Path) -> None:
    """A script that only starts an imported app counts as that app, with the configs beside the other module."""
    (folder / "sub").mkdir()
    (folder / "conf.yaml").rename(folder / "sub" / "conf.yaml")
    (folder / "sub" / "theirs.py").write_text(
        textwrap.dedent(_AS_HYDRA_RUNS_IT["a decorator around hydra.main that does not say so"])
    )
    app = _load("from sub.theirs import task as run_it\nif __name__ == '__main__':\n    run_it()\n")
    assert app.is_hydra
    assert _call(app) == 0.25


def test_a_plain_function_beside_an_imported_app_is_plain(folder: Path) -> None:
    """A module that imports an app but does not start it may have its own function."""
    (folder / "theirs.py").write_text(
        textwrap.dedent(_AS_HYDRA_RUNS_IT["a decorator around hydra.main that does not say so"])
    )
    app = _load("from theirs import task\ndef mine(cfg):\n    return 'mine'\n")
    assert not app.is_hydra
    assert app.task({}) == "mine"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "import hydra\ndef task(cfg): ...\ndef go():\n    hydra.main(version_base=None, config_path=None)(task)()\n",
            r"hidden.py starts Hydra in a way that does not show which.*python hidden.py -m hydra/launcher=remote",
        ),
        (
            (
                "from hydra_zen import zen\ndef task(cfg): ...\nif __name__ == '__main__':\n"
                "    raise OSError('no data')\n    zen(task).hydra_main()\n"
            ),
            r"ended before it started Hydra: OSError: no data \(.*hidden.py, line 4\)",
        ),
        (
            (
                "import sys\nfrom hydra_zen import zen\ndef task(cfg): ...\nif __name__ == '__main__':\n"
                "    sys.exit(3)\n    zen(task).hydra_main()\n"
            ),
            "ended before it started Hydra: SystemExit: 3",
        ),
    ],
)
def test_an_entry_that_cannot_be_read_is_refused(folder: Path, script: str, says: str) -> None:
    """The message has the next step. The task is not called."""
    with pytest.raises(UsageError, match=says):
        _load(script)


def test_a_guard_that_starts_no_hydra_is_not_executed(folder: Path) -> None:
    """The code of a plain script below its guard does not run, even if it uses Hydra's configs."""
    app = _load(
        "import hydra\nfrom hydra import compose\ndef train(cfg): return 7\n"
        "if __name__ == '__main__':\n    raise RuntimeError('executed')\n"
    )
    assert app.task({}) == 7


def test_hydra_is_restored(folder: Path) -> None:
    """Nothing in Hydra stays replaced, and the command line is the caller's again."""
    modules: list[Any] = [importlib.import_module(name) for name in ("hydra._internal.utils", "hydra.main")]
    modules[1] = sys.modules["hydra.main"]
    before = [one._run_hydra for one in modules], list(sys.argv)
    _load(_AS_HYDRA_RUNS_IT["zen below the guard"])
    assert ([one._run_hydra for one in modules], sys.argv) == before
