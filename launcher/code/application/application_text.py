"""What the text of a module says of the application in it: which function runs, and with which arguments `@hydra.main` decorates it.

Rule: nothing is imported and nothing of the module is run. What the text does not say for certain is not guessed: a function that is
defined twice or under a condition, a decorator that is not known, an argument of `@hydra.main` that is not a literal, or Hydra started
below the `__main__` guard.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from launcher.util.frozen import frozen

__all__ = ["FunctionText", "NotInTheText", "defines_class", "names_of_hydra", "read_function"]

#: The parameters of `hydra.main`, in order.
_OF_MAIN = ("config_path", "config_name", "version_base")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class NotInTheText(Exception):
    """The text does not say it; the message says what."""


@frozen
class FunctionText:
    """A function, as the text has it.

    Attributes:
        name: its name in the module.
        stand_in: a function with its name, its file and its parameters, which raises when it is called.
        hydra: the arguments of the `@hydra.main` that decorates it; None for a plain function.
    """

    name: str
    stand_in: FunctionType
    hydra: dict[str, str | None] | None


def read_function(file: Path, module: str, name: str | None) -> FunctionText:
    """What the text says of a function; without a name, of the one that would be chosen (see `launcher.code.application.application`).

    Args:
        module: the name of the module.

    Raises:
        NotInTheText: it does not say which function it is, or what decorates it.
    """
    return _Text(file, module).function(name)


def defines_class(file: Path, name: str) -> bool:
    """Whether the text defines a class of this name, once and under no condition."""
    try:
        tree = _parsed(file)
    except NotInTheText:
        return False
    defined = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return len(defined) == 1 and sum(name in _bound_by(node) for node in _statements(tree.body)) == 1


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise NotInTheText(f"{file.name} cannot be read: {error}") from error


class _Text:
    def __init__(self, file: Path, module: str) -> None:
        self._file = file
        self._module = module
        self._tree = _parsed(file)
        self._hydras, self._mains = names_of_hydra(self._tree)
        self._functions = {node.name: node for node in self._tree.body if isinstance(node, _Function)}

    def function(self, name: str | None) -> FunctionText:
        """What `read_function` returns."""
        if name is not None:
            return self._text_of(self._certain(name))
        decorated = [node for node in self._functions.values() if self._main_of(node) is not None]
        public = [node for node in decorated if not node.name.startswith("_")]
        if len(public) == 1 and len(decorated) == 1:
            return self._text_of(self._certain(public[0].name))
        if decorated:
            raise NotInTheText("which of its functions with @hydra.main is meant")
        if self._starts_hydra():
            raise NotInTheText("how it starts Hydra")
        return self._text_of(self._certain(self._plain_choice()))

    def _plain_choice(self) -> str:
        """The function that is run if none is named, and Hydra starts none."""
        public = [node for name, node in self._functions.items() if not name.startswith("_")]
        main = self._functions.get("main")
        if main is not None and not main.decorator_list and _accepts_one(main.args):
            return "main"
        fitting = [node for node in public if node.decorator_list or _accepts_one(node.args)]
        if len(fitting) != 1:
            raise NotInTheText("which of its functions is meant")
        return fitting[0].name

    def _certain(self, name: str) -> _Function:
        """The function of that name, if it is certain that the module has it under this name in the end."""
        node = self._functions.get(name)
        bindings = sum(name in _bound_by(one) for one in _statements(self._tree.body))
        if node is None or bindings != 1:
            raise NotInTheText(f"what {name!r} is")
        after = self._tree.body[self._tree.body.index(node) :]
        if any("*" in _bound_by(one) for one in _statements(after)):
            raise NotInTheText(f"whether a later `import *` replaces {name!r}")
        return node

    def _text_of(self, node: _Function) -> FunctionText:
        main = self._main_of(node)
        if main is None and node.decorator_list:
            raise NotInTheText(f"what the decorators of {node.name!r} do")
        if main is None and self._starts_hydra():
            raise NotInTheText(f"whether it starts Hydra with {node.name!r}")
        arguments = _literals(main) if main is not None else None
        return FunctionText(node.name, _stand_in(node, self._file, self._module), arguments)

    def _main_of(self, node: _Function) -> ast.expr | None:
        """The decorator that is `hydra.main`."""
        for one in node.decorator_list:
            if self._is_main(one.func if isinstance(one, ast.Call) else one):
                return one
        return None

    def _is_main(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self._mains
        is_attribute = isinstance(node, ast.Attribute) and node.attr == "main" and isinstance(node.value, ast.Name)
        return is_attribute and node.value.id in self._hydras  # type: ignore[attr-defined]

    def _starts_hydra(self) -> bool:
        """Whether it may start Hydra in another way than by a decorator in sight."""
        seen = {
            id(inner) for node in self._functions.values() for one in node.decorator_list for inner in ast.walk(one)
        }
        for node in ast.walk(self._tree):
            if id(node) in seen:
                continue
            if self._is_main(node) or (isinstance(node, ast.Attribute) and node.attr == "hydra_main"):
                return True
        return False


def names_of_hydra(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The names that mean the package `hydra`, and those that mean `hydra.main`."""
    hydras, mains = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            hydras |= {alias.asname or "hydra" for alias in node.names if alias.name == "hydra"}
            hydras |= {"hydra" for alias in node.names if alias.name.startswith("hydra.") and not alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module in ("hydra", "hydra.main") and not node.level:
            mains |= {alias.asname or alias.name for alias in node.names if alias.name == "main"}
    return hydras, mains


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported; not those within functions and classes."""
    for node in body:
        yield node
        if isinstance(node, (_Function, ast.ClassDef)):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body)


def _bound_by(node: ast.stmt) -> set[str]:
    """The names that a statement itself binds or deletes; `*` for a star import."""
    if isinstance(node, (_Function, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    inner = {id(one) for field in ("body", "orelse", "finalbody") for one in getattr(node, field, [])}
    found: set[str] = set()
    waiting: list[ast.AST] = [one for one in ast.iter_child_nodes(node) if id(one) not in inner]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.stmt):
            continue
        if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load):
            found.add(one.id)
        waiting.extend(ast.iter_child_nodes(one))
    return found


def _literals(main: ast.expr) -> dict[str, str | None]:
    """The arguments of a call of `hydra.main`.

    Raises:
        NotInTheText: one of them is not a literal.
    """
    if not isinstance(main, ast.Call):
        raise NotInTheText("the arguments of @hydra.main")
    named = list(zip(_OF_MAIN, main.args, strict=False)) + [(str(one.arg), one.value) for one in main.keywords]
    if len(main.args) > len(_OF_MAIN) or len({name for name, _ in named}) != len(named):
        raise NotInTheText("the arguments of @hydra.main")
    values = {}
    for name, node in named:
        if name not in _OF_MAIN or not isinstance(node, ast.Constant) or not isinstance(node.value, (str, type(None))):
            raise NotInTheText(f"the value of {name} in @hydra.main")
        values[name] = node.value
    return values


def _accepts_one(arguments: ast.arguments) -> bool:
    """Whether a function with these parameters can be called with one positional argument."""
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    has_room = positional >= 1 or arguments.vararg is not None
    return required <= 1 and has_room and all(default is not None for default in arguments.kw_defaults)


def _is_generator(node: _Function) -> bool:
    """Whether it yields by itself, and not in a function within it."""
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        one = waiting.pop()
        if isinstance(one, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(one, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            waiting.extend(ast.iter_child_nodes(one))
    return False


def _stand_in(node: _Function, file: Path, module: str) -> Any:
    """A function with the name and the parameters of another one, in the same file and module. To call it is an error."""
    none: Any = ast.Constant(None)

    def bare(parameter: ast.arg | None) -> Any:
        return None if parameter is None else ast.arg(parameter.arg)

    given = node.args
    parameters = ast.arguments(
        posonlyargs=[bare(one) for one in given.posonlyargs],
        args=[bare(one) for one in given.args],
        vararg=bare(given.vararg),
        kwonlyargs=[bare(one) for one in given.kwonlyargs],
        kw_defaults=[None if one is None else none for one in given.kw_defaults],
        kwarg=bare(given.kwarg),
        defaults=[none for _ in given.defaults],
    )
    told = f"{module}.{node.name} was read from its text; it runs on a host"
    error: Any = ast.Call(ast.Name("NotImplementedError", ast.Load()), [ast.Constant(told)], [])
    body: list[ast.stmt] = [ast.Raise(error, None)]
    if _is_generator(node):
        body.append(ast.Expr(ast.Yield(None)))
    kind = type(node)
    made = kind(node.name, parameters, body, [], None, None)
    if hasattr(made, "type_params"):
        made.type_params = []
    namespace: dict[str, Any] = {"__name__": module}
    tree = ast.fix_missing_locations(ast.Module([made], []))
    exec(compile(tree, str(file), "exec"), namespace)  # noqa: S102 - of the user's text it has names of parameters alone
    return namespace[node.name]
