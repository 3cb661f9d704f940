"""What a function can be called with, and what is said of one that is no task."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.code.application.application_text import read_function
from launcher.code.application.functions import why_no_task
from launcher.code.application.task import check_task
from launcher.errors import UsageError

FITTING = """
def one(cfg): ...
def defaults(cfg, lr=1, *, w=2): ...
def positional_only(cfg, /): ...
def any_number(*args): ...
def all_of_it(cfg, *args, **kwargs): ...
def typed(cfg: "Config"): ...
def with_an_inner_generator(cfg):
    def inner():
        yield 1
    return list(inner()) + [(lambda: (yield))]
"""

NOT_FITTING = [
    (
        "def area(w, h): ...",
        "cannot be called with one config: it needs w, h; write it as area(cfg), with cfg.w, cfg.h",
    ),
    ("def area(cfg, h): ...", "cannot be called with one config: it needs cfg, h; write it as area(cfg), with cfg.h"),
    ("def area(w, h, /): ...", "it needs w, h; write it as area(cfg), with cfg.w, cfg.h"),
    ("def area(*, w): ...", "it needs w; write it as area(cfg), with cfg.w"),
    ("def area(cfg, *, h): ...", "it needs cfg, h; write it as area(cfg), with cfg.h"),
    ("def area(**values): ...", "cannot be called with one config: its first parameter must take the config"),
    ("def area(): ...", "its first parameter must take the config"),
    ("async def area(cfg): ...", "is async, and nothing of it would run"),
    ("def area(cfg):\n    yield 1", "is a generator, and nothing of it would run"),
    ("def area(cfg):\n    for one in cfg:\n        yield from one", "is a generator"),
    ("async def area(cfg):\n    yield 1", "is a generator"),
]


def defined(text: str, name: str) -> Any:
    """The function as it is when its module was imported."""
    names: dict[str, Any] = {}
    exec(text, names)
    return names[name]


def in_text(text: str, name: str, folder: Path) -> Any:
    """The function as it is read from its text."""
    file = folder / "my_app.py"
    file.write_text(text)
    return read_function(file, "my_app", name).stand_in


@pytest.mark.parametrize(
    "name", ["one", "defaults", "positional_only", "any_number", "all_of_it", "typed", "with_an_inner_generator"]
)
def test_a_function_that_takes_one_config_is_a_task(name: str, tmp_path: Path) -> None:
    """Imported, and read from its text."""
    assert why_no_task(defined(FITTING, name)) == ""
    assert why_no_task(in_text(FITTING, name, tmp_path)) == ""


@pytest.mark.parametrize(("text", "why"), NOT_FITTING, ids=str)
def test_what_is_wrong_is_said_by_name(text: str, why: str, tmp_path: Path) -> None:
    """And how to write it. Without an import, too."""
    assert why in why_no_task(defined(text, "area"))
    assert why in why_no_task(in_text(text, "area", tmp_path))


def test_a_class_is_a_task_if_it_is_made_of_one_config() -> None:
    """A dataclass of two fields is not."""

    @dataclass
    class One:
        cfg: Any

    @dataclass
    class Two:
        w: int
        h: int

    assert why_no_task(One) == ""
    assert "it needs w, h" in why_no_task(Two)


def test_a_decorator_may_run_what_is_async() -> None:
    """It is the decorated function that counts."""

    async def work(cfg: Any) -> None: ...

    @functools.wraps(work)
    def runs(*args: Any, **kwargs: Any) -> None: ...

    assert why_no_task(runs) == ""


async def _awaited(cfg: Any) -> None: ...


def _yields(cfg: Any) -> Iterator[int]:
    yield 1


async def _yields_later(cfg: Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("task", [_awaited, _yields, _yields_later])
def test_a_task_that_would_not_run_is_refused_before_anything_is_sent(task: Any, with_config: bool) -> None:
    """From Python as well, also with arguments of its own."""
    with pytest.raises(UsageError, match="nothing of it would run"):
        check_task(task, with_config=with_config)
