"""Applications as users name them. The right function is found, under a name by which a host can import it."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

import launcher
from launcher.code.application.application import load_application
from launcher.errors import UsageError

HYDRA_APP = """
    import hydra
    from omegaconf import DictConfig

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def my_task(cfg: DictConfig) -> float:
        return cfg.lr

    def helper(cfg):
        return None

    if __name__ == "__main__":
        raise RuntimeError("the guard was executed")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder for the test. What is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "") or ""):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def test_a_hydra_app_is_found_by_its_decorator_and_undecorated(folder):
    """The task is the user's function.

    The arguments of `@hydra.main` are known. The code below the guard does not run.
    """
    write(folder, "happ1.py", HYDRA_APP)
    app = load_application("happ1.py")
    assert app.is_hydra
    assert (app.config_path, app.config_name, app.version_base) == ("conf", "config", "1.3")
    assert app.task.__name__ == "my_task"
    assert app.task is sys.modules["happ1"].my_task.__wrapped__
    assert (app.module_name, app.qualname, app.reference) == ("happ1", "my_task", "happ1:my_task")
    assert (app.name, app.file, app.root) == ("happ1", folder / "happ1.py", folder)
    assert sys.path[0] == str(folder)


def test_a_working_folder_that_is_gone_is_named(folder, monkeypatch):
    """This holds on the command line and in Python, before anything is searched there."""
    write(folder, "app_of_gone.py", "def main(cfg):\n    return 1\n")
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="started does not exist any more"):
        load_application(str(folder / "app_of_gone.py"))
    with pytest.raises(UsageError, match="started does not exist any more"):
        launcher.run(len, {})


def test_an_app_elsewhere_puts_its_folder_first(folder):
    """Its sibling modules are found, as with `python sub/app.py`."""
    write(folder, "sub/sibling_of_2.py", "value = 7\n")
    write(folder, "sub/app2.py", "import sibling_of_2\ndef main(cfg):\n    return sibling_of_2.value\n")
    app = load_application("sub/app2.py")
    assert app.task({}) == 7
    assert app.root == folder / "sub"
    assert sys.path[0] == str(folder / "sub")
    assert not app.is_hydra


def test_a_function_may_be_named(folder):
    """`file.py:function` also finds one inside a class."""
    write(
        folder,
        "app3.py",
        "def one(cfg): return 1\ndef two(cfg): return 2\nclass A:\n    @staticmethod\n    def three(cfg): return 3\n",
    )
    assert load_application("app3.py:two").task({}) == 2
    inner = load_application("app3.py:A.three")
    assert inner.task({}) == 3
    assert inner.reference == "app3:A.three"


def test_a_module_in_a_package_is_found(folder):
    """`package.module` is imported from the working folder, with relative imports."""
    write(folder, "pkg4/__init__.py", "")
    write(folder, "pkg4/other.py", "value = 4\n")
    write(folder, "pkg4/app.py", "from .other import value\ndef train(cfg):\n    return value\n")
    app = load_application("pkg4.app:train")
    assert app.task({}) == 4
    assert (app.module_name, app.root) == ("pkg4.app", folder)
    assert load_application("pkg4.app").qualname == "train"


def test_a_package_means_its_main_module(folder):
    """`package` alone means its `__main__`, as with `python -m`."""
    write(folder, "pkg5/__init__.py", "")
    write(folder, "pkg5/__main__.py", "def main(cfg):\n    return 5\n")
    app = load_application("pkg5")
    assert app.task({}) == 5
    assert app.module_name == "pkg5.__main__"


def test_the_right_function_is_chosen(folder):
    """This is `main` if it takes a config, or else the only public function that does.

    Imported and private ones do not count.
    """
    write(folder, "app6.py", "def main(cfg): return 'main'\ndef other(cfg): return 'other'\n")
    assert load_application("app6.py").qualname == "main"
    write(
        folder,
        "app7.py",
        "from json import dumps\ndef main(): ...\ndef _hidden(cfg): ...\ndef fit(cfg): ...\ndef two(a, b): ...\n",
    )
    assert load_application("app7.py").qualname == "fit"


@pytest.mark.parametrize(
    ("text", "content", "says"),
    [
        ("bad8.py", "def a(cfg): ...\ndef b(cfg): ...\n", "bad8:a, bad8:b"),
        ("bad9.py", "def a(): ...\n", "a()"),
        ("bad10.py", "x = 1\n", "none at all"),
        ("bad11.py:trian", "def train(cfg): ...\n", "did you mean 'train'"),
        ("bad12.py:x", "x = 1\n", "not a function"),
        ("bad13.py:f", "def f(a, b): ...\n", "cannot be called with one config"),
        ("bad14.py", "import no_such_module_anywhere\n", "no_such_module_anywhere"),
        ("bad15.py", "def f(:\n", "SyntaxError"),
        ("bad16.py", "raise ValueError('from the import')\n", "line 1"),
        ("bad17.py", "from . import x\n", "package.module"),
        ("json.py", "def f(cfg): ...\n", "rename the file"),
        ("two.dots.py", "def f(cfg): ...\n", "rename the file"),
        ("missing18.py", None, "no such file"),
        ("no_such_module_19", None, "no module 'no_such_module_19'"),
        ("json.nothing", None, "json.nothing"),
        ("a b", None, "neither a Python file"),
        (":f", None, "not an application"),
        ("bad20.py:", "", "not an application"),
    ],
)
def test_an_invalid_name_is_refused_with_a_hint(folder, text, content, says):
    """Each mistake is a UsageError that names what exists."""
    if content is not None:
        write(folder, text.partition(":")[0], content)
    with pytest.raises(UsageError) as caught:
        load_application(text)
    assert says in str(caught.value)


def test_a_typo_in_the_file_name_offers_the_nearest(folder):
    """The message names the nearest file in that folder."""
    write(folder, "train21.py", "def main(cfg): ...\n")
    with pytest.raises(UsageError, match=r"train21\.py"):
        load_application("trian21.py")


def test_several_hydra_mains_need_a_name(folder):
    """With two decorated functions, neither is guessed. Each can be named."""
    body = HYDRA_APP + "\n    @hydra.main(version_base=None)\n    def second(cfg):\n        return 2\n"
    write(folder, "happ22.py", body)
    with pytest.raises(UsageError, match="happ22:my_task, happ22:second"):
        load_application("happ22.py")
    app = load_application("happ22.py:second")
    assert app.is_hydra
    assert app.config_name is None


def test_a_decorator_around_hydra_main(folder):
    """A decorator outside `@hydra.main` does not hide it. A decorator inside stays part of the task."""
    write(
        folder,
        "happ23.py",
        """
        import functools, hydra

        def twice(function):
            @functools.wraps(function)
            def inner(*args):
                return 2 * function(*args) if args else function()
            return inner

        @twice
        @hydra.main(version_base="1.2", config_name="x")
        @twice
        def job(cfg):
            return cfg
        """,
    )
    app = load_application("happ23.py:job")
    assert app.is_hydra
    assert app.version_base == "1.2"
    assert app.task(3) == 6


def test_the_same_file_again_is_the_same_module(folder):
    """Loading it twice imports it once."""
    write(folder, "app24.py", "things = []\ndef main(cfg):\n    things.append(cfg)\n    return len(things)\n")
    first = load_application("app24.py")
    second = load_application("./app24.py")
    assert first.task is second.task
