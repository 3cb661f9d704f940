"""What the text of a module says of the application in it, under all the names that `hydra.main` can have."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import pytest

from launcher.code.application.application_text import NotInTheText, defines_class, read_function


@pytest.fixture
def write(tmp_path: Path):
    """Writes a module, and returns its file."""

    def write(text: str) -> Path:
        file = tmp_path / "my_app.py"
        file.write_text(textwrap.dedent(text))
        return file

    return write


@pytest.mark.parametrize(
    ("imports", "decorator"),
    [
        ("import hydra", "hydra.main"),
        ("import hydra as h", "h.main"),
        ("import hydra.utils", "hydra.main"),
        ("import hydra.utils, os", "hydra.main"),
        ("from hydra import main", "main"),
        ("from hydra import main as m", "m"),
        ("from hydra.main import main as entry", "entry"),
        ("try:\n    import hydra\nexcept ImportError:\n    hydra = None", "hydra.main"),
    ],
)
def test_hydra_main_is_found_under_any_name(imports: str, decorator: str, write) -> None:
    """Its arguments are those of the decorator, by position and by name; one that is left out is left out."""
    text = f'{imports}\n@{decorator}("conf", config_name="config")\ndef train(cfg):\n    pass\n'
    told = read_function(write("import nothing_like_this\n" + text), "my_app", None)
    assert told.name == "train"
    assert told.hydra == {"config_path": "conf", "config_name": "config"}


def test_the_stand_in_looks_like_the_function(write) -> None:
    """It has the name, module, file and parameters, and evaluates no annotation or default. To call it is an error."""
    file = write("def train(cfg: Missing, x=expensive(), *more, y: int = missing, **rest) -> Missing:\n    pass\n")
    stand_in = read_function(file, "package.my_app", "train").stand_in
    assert (stand_in.__module__, stand_in.__qualname__) == ("package.my_app", "train")
    assert inspect.getfile(stand_in) == str(file)
    assert str(inspect.signature(stand_in)) == "(cfg, x=None, *more, y=None, **rest)"
    with pytest.raises(NotImplementedError, match=r"package\.my_app\.train"):
        stand_in(1)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("def only(cfg): pass\ndef _other(cfg): pass\ndef two(a, b): pass\n", "only"),
        ("def main(cfg): pass\ndef other(cfg): pass\n", "main"),
        ("def main(): pass\ndef other(cfg): pass\n", "other"),
        ("def main(*args): pass\n", "main"),
        ("async def main(cfg, *, more=1): pass\n", "main"),
        ("import hydra\n@hydra.main()\ndef a(cfg): pass\ndef main(cfg): pass\n", "a"),
        ("import hydra\n@other\n@hydra.main()\n@another\ndef a(cfg): pass\n", "a"),
        ("import hydra\n@hydra.main()\ndef a(cfg): pass\nif __name__ == '__main__':\n    a()\n", "a"),
        ("@decorated\ndef main2(cfg): pass\ndef main(cfg): pass\n", "main"),
    ],
)
def test_the_function_is_chosen_as_after_an_import(text: str, chosen: str, write) -> None:
    """The one with `@hydra.main`, then `main`, then the only one that takes a config."""
    assert read_function(write(text), "my_app", None).name == chosen


@pytest.mark.parametrize(
    ("text", "name", "lack"),
    [
        ("import hydra\n@hydra.main(config_path=PATH)\ndef a(cfg): pass\n", None, "value of config_path"),
        ("import hydra\n@hydra.main(config_path=f'x')\ndef a(cfg): pass\n", None, "value of config_path"),
        ("import hydra\n@hydra.main(**kw)\ndef a(cfg): pass\n", None, "value of None"),
        ("import hydra\n@hydra.main(*args)\ndef a(cfg): pass\n", None, "value of config_path"),
        ("import hydra\n@hydra.main('a', config_path='b')\ndef a(cfg): pass\n", None, "arguments"),
        ("import hydra\n@hydra.main\ndef a(cfg): pass\n", None, "arguments"),
        ("import hydra\n@hydra.main()\ndef a(cfg): pass\n@hydra.main()\ndef b(cfg): pass\n", None, "which"),
        ("import hydra\ndef a(cfg): pass\nif __name__ == '__main__':\n    hydra.main()(a)()\n", None, "starts Hydra"),
        ("import hydra\ndef a(cfg): pass\nb = hydra.main()(a)\n", "a", "starts Hydra"),
        ("def a(cfg): pass\nif __name__ == '__main__':\n    zen(a).hydra_main()\n", None, "starts Hydra"),
        ("def a(cfg): pass\ndef b(cfg): pass\n", None, "which"),
        ("@decorated\ndef a(cfg): pass\n", None, "decorators"),
        ("@decorated\ndef a(cfg): pass\ndef b(cfg): pass\n", None, "which"),
        ("a = make()\n", "a", "what 'a' is"),
        ("class A: pass\n", "A", "what 'A' is"),
        ("class A:\n    def run(self, cfg): pass\n", "A.run", "what 'A.run' is"),
        ("def a(cfg): pass\na = other(a)\n", "a", "what 'a' is"),
        ("def a(cfg): pass\na: object = other(a)\n", "a", "what 'a' is"),
        ("def a(cfg): pass\nfor a in []: pass\n", "a", "what 'a' is"),
        ("def a(cfg): pass\nwith open('x') as a: pass\n", "a", "what 'a' is"),
        ("def a(cfg): pass\nprint(a := 1)\n", "a", "what 'a' is"),
        ("def a(cfg): pass\ndel a\n", "a", "what 'a' is"),
        ("def a(cfg): pass\nimport b as a\n", "a", "what 'a' is"),
        ("if x:\n    def a(cfg): pass\n", "a", "what 'a' is"),
        ("def a(cfg): pass\ntry:\n    pass\nexcept E:\n    def a(cfg): pass\n", "a", "what 'a' is"),
        ("def a(cfg): pass\nfrom b import *\n", "a", "import \\*"),
        ("def a(cfg:\n", "a", "cannot be read"),
        ("\0", "a", "cannot be read"),
    ],
)
def test_what_is_not_certain_is_not_guessed(text: str, name: str | None, lack: str, write) -> None:
    """The error says what the text does not tell."""
    with pytest.raises(NotInTheText, match=lack):
        read_function(write(text), "my_app", name)


def test_a_missing_file_is_not_read(tmp_path: Path) -> None:
    """It is no error of another kind."""
    with pytest.raises(NotInTheText):
        read_function(tmp_path / "gone.py", "gone", None)


@pytest.mark.parametrize(
    ("text", "is_class"),
    [
        ("class A: pass\n", True),
        ("A = object()\n", False),
        ("class A: pass\nA = A()\n", False),
        ("if x:\n    class A: pass\n", False),
        ("class A(\n", False),
    ],
)
def test_a_class_is_told_from_an_object(text: str, is_class: bool, write) -> None:
    """Only a class can be built on a host by its name."""
    assert defines_class(write(text), "A") is is_class
