"""Loads a command of the table: its function, and the parser of what the function takes.

Rule: only the command that is asked for is imported.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from launcher.cli.commands import COMMANDS
from launcher.cli.parameters import CommandName, parameters_of
from launcher.cli.parser import Parser

__all__ = ["OPTIONS", "PROG", "load_command"]

PROG = "launcher"
#: The options that stand in place of a command.
OPTIONS = {
    "--version": "Show the version and exit.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
    "--help": "Show this message and exit.",
}


def load_command(name: str) -> tuple[Parser, Callable[[dict[str, Any]], None]]:
    """The parser of a command, and what runs it with the values that were given."""
    module, _, attribute = COMMANDS[name].function.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    parameters, own_name = parameters_of(function)

    def call(values: dict[str, Any]) -> None:
        function(**values, **({own_name: CommandName(name)} if own_name else {}))

    return Parser(f"{PROG} {name}", inspect.getdoc(function) or "", parameters), call
