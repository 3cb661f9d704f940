"""What begins with an underscore is used in the file that has it, and nowhere else.

Ruff's SLF001 does not see a private name that is imported, nor what a class takes of its base in another file.
"""

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for part in ("launcher", "remote_agent", "hydra_plugins") for path in (ROOT / part).rglob("*.py"))

OMEGACONF = "omegaconf shows no node without resolving it, and makes none quickly, but by these"
HYDRA = "Hydra's own steps, in its order, which it offers to nobody"
PUBLIC = "it is public, for all its underscore (docs.python.org)"
#: Names of other packages, or of a base from another package, that have no public one in their place: each with its reason.
ALLOWED = {
    **dict.fromkeys(
        [
            "_content",
            "_dereference_node",
            "_get_full_key",
            "_get_node",
            "_get_parent",
            "_get_root",
            "_is_interpolation",
            "_is_missing",
            "_is_none",
            "_metadata",
            "_resolvers",
            "_set_flag",
            "_set_parent",
            "_value",
        ],
        OMEGACONF,
    ),
    **dict.fromkeys(
        [
            "_UNSPECIFIED_",
            "_apply_overrides_to_config",
            "_find_object_source",
            "_get_module_name_override",
            "_instances",
            "_load_configuration_impl",
            "_parse_overrides_and_create_caching_repo",
            "_run_hydra",
        ],
        HYDRA,
    ),
    **dict.fromkeys(["_exit", "_fields", "_getframe", "_replace"], PUBLIC),
    "_FIELD": "how dataclasses tell a field from a class variable; as `dataclasses.fields` does it",
    "_field_type": "likewise",
    "_IOBase": "the C type: to ask `io.IOBase` is to ask an ABC, which may run code of a user",
    "_args_from_interpreter_flags": "the one way to start another Python as this one was started (multiprocessing does it so)",
    "_builtin_type": "cloudpickle leaves this name in its pickles",
    "_data": "what `os.environ` looks into: to note which variables are read, there is no public way",
    "_xoptions": "the options `-X` of a Python, which have no public name",
    "_close": "paramiko's `Agent`, which is found at one place only, at another",
    "_connect": "as `_close`",
    "_return_value": "the field of Hydra's JobReturn that its `return_value` reads; ours has it under the same name",
    "_send_message": "paramiko's `AgentKey` says nothing else to an agent",
    "_state": "as `_condition`",
}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


def defined_in(nodes: Iterable[ast.AST]) -> set[str]:
    """Every private name that the file itself gives to something: a function, a class, a variable, or an attribute."""
    found = set()
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        ):
            found.add(node.attr)
    return {name for name in found if _is_private(name)}


def foreign_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every private name that the file uses of something that it does not define."""
    nodes = list(ast.walk(tree))
    own = defined_in(nodes)
    if any(isinstance(node, ast.Name) and node.id == "super" for node in nodes):
        yield from _of_foreign_bases([node for node in nodes if isinstance(node, ast.ClassDef)])
    for node in nodes:
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, one.name) for one in node.names if _is_private(one.name))


@functools.cache
def foreign_in_file(path: Path) -> list[tuple[int, str]]:
    """The same of a file."""
    return list(foreign_in(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))


def _of_foreign_bases(classes: list[ast.ClassDef]) -> Iterator[tuple[int, str]]:
    """What a class takes by `super()` where no base of it is of this file."""
    names = {one.name for one in classes}
    for one in classes:
        if any(isinstance(base, ast.Name) and base.id in names for base in one.bases):
            continue
        for node in ast.walk(one):
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and "super()" in ast.unparse(node.value):
                yield node.lineno, node.attr


def test_private_members_stay_in_their_file() -> None:
    """No module reaches into another one: what is shared is public, with a docstring."""
    found = [(str(path.relative_to(ROOT)), *used) for path in FILES for used in foreign_in_file(path)]
    assert [one for one in found if one[2] not in ALLOWED] == []


def test_what_is_allowed_is_used() -> None:
    """An exception that nothing needs any more is no exception."""
    used = {name for path in FILES for _, name in foreign_in_file(path)}
    assert sorted(set(ALLOWED) - used) == []


@pytest.mark.parametrize(
    "text",
    [
        "from other import _helper",
        "def use(other):\n    return other._part",
        "class Derived(Base):\n    def use(self):\n        return self._part",
        "class Derived(Base):\n    def _use(self):\n        return super()._use()",
    ],
)
def test_each_way_into_another_file_is_found(text: str) -> None:
    """An imported name, an attribute of an object, what a base in another file has, and what is put in its place."""
    assert list(foreign_in(ast.parse(text)))


def test_what_a_file_defines_is_its_own() -> None:
    """Two objects of one class may know each other, and so may a class and its base in one file."""
    text = """
class Base:
    def __init__(self):
        self._part = 1

    def _use(self, other):
        return other._part


class Derived(Base):
    def _use(self, other):
        return super()._use(other)
"""
    assert list(foreign_in(ast.parse(text))) == []
