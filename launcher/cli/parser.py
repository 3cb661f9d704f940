"""Reads the arguments of a command with argparse, and writes the help.

Rule: options may stand before, between and after the other arguments, and `--` ends them. What is wrong is a usage error that names
the option, and for an unknown one the nearest. It imports argparse and nothing larger: typer, or click alone, takes longer to import than
`launcher runs` to answer (docs/decisions.md).
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from launcher.cli.parameters import Exit, Parameter
from launcher.util.text.near import names_like
from launcher.util.text.terminal_text import terminal_columns

__all__ = ["Parser", "UsageProblem", "help_text"]

#: Columns of what an option is called, in the help; a longer one has a line of its own.
_NAMES = 32
_WIDEST = 80


class UsageProblem(Exception):
    """The arguments of a command are wrong."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    """The formatter with which argparse checks each option. Its width is given: to find that of the terminal, argparse imports shutil."""
    return argparse.HelpFormatter(prog, width=_WIDEST)


class _Options(argparse.ArgumentParser):
    """argparse's parser for the options alone."""

    def error(self, message: str) -> NoReturn:
        raise UsageProblem(message.removeprefix("argument "))


class Parser:
    """The arguments of one command.

    Args:
        prog: the command, as it is typed.
        about: what the command does; paragraphs have an empty line between them.
    """

    def __init__(self, prog: str, about: str, parameters: Sequence[Parameter]) -> None:
        self.prog = prog
        self._about = about
        self.options = [one for one in parameters if not one.is_argument]
        self.arguments = [one for one in parameters if one.is_argument]

    def parse(self, args: Sequence[str]) -> dict[str, Any]:
        """The values of the parameters, by name.

        Raises:
            UsageProblem: an argument is wrong.
            Exit: the help was asked for, and was printed.
        """
        parser = _Options(
            add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS, formatter_class=_formatter
        )
        parser.add_argument("--help", action="store_true")
        for one in self.options:
            self._add(parser, one)
        end = list(args).index("--") if "--" in args else len(args)
        found, rest = parser.parse_known_args(self._joined(list(args[:end])))
        given = vars(found)
        if given.pop("help", False):
            print(self.help())
            raise Exit
        for word in rest:
            if word.startswith("-") and word != "-":
                raise UsageProblem(self._unknown(word.partition("=")[0]))
        values = {one.name: one.default for one in (*self.options, *self.arguments)} | given
        return values | self._bound([*rest, *args[end + 1 :]])

    def _add(self, parser: argparse.ArgumentParser, one: Parameter) -> None:
        if not one.is_switch:
            action = "append" if one.is_list else "store"
            parser.add_argument(*one.flags_on, dest=one.name, action=action, type=_reader(one))
            return
        parser.add_argument(*one.flags_on, dest=one.name, action="store_true")
        if one.flags_off:
            parser.add_argument(*one.flags_off, dest=one.name, action="store_false")

    def _joined(self, words: list[str]) -> list[str]:
        """The words, with `--sort -loss` as `--sort=-loss`: argparse takes a word with a dash for an option."""
        known = {flag for one in self.options for flag in (*one.flags_on, *one.flags_off)} | {"--help"}
        takers = {flag for one in self.options if one.declared.takes_dash for flag in one.flags_on}
        joined: list[str] = []
        for word in words:
            if joined and joined[-1] in takers and word.startswith("-") and word.partition("=")[0] not in known:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _unknown(self, flag: str) -> str:
        known = [flag for one in self.options for flag in (*one.flags_on, *one.flags_off)]
        near = names_like(flag, [*known, "--help"], 3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        return f"no such option: {flag}{hint}"

    def _bound(self, words: list[str]) -> dict[str, Any]:
        """The words without a flag, assigned to the arguments in order. A list takes all that are left."""
        values: dict[str, Any] = {}
        for one in self.arguments:
            if words and one.is_list:
                values[one.name], words = words, []
            elif words:
                values[one.name], words = _read(one, words[0]), words[1:]
            elif one.is_required:
                raise UsageProblem(f"missing argument {one.metavar}")
        if words:
            raise UsageProblem(f"unexpected extra argument{'s' if len(words) > 1 else ''}: {' '.join(words)}")
        return values

    # -- help ----------------------------------------------------------------------------------------------------

    @property
    def usage(self) -> str:
        """One line that says what the command takes."""
        names = [
            name if one.is_required or name.startswith("[") else f"[{name}]"
            for one in self.arguments
            for name in [one.metavar]
        ]
        return " ".join(["Usage:", self.prog, "[OPTIONS]", *names])

    def help(self) -> str:
        """The help of the command."""
        sections = {
            "Arguments": [(one.metavar, _about(one)) for one in self.arguments],
            "Options": [
                *((_names(one), _about(one)) for one in self.options),
                ("--help", "Show this message and exit."),
            ],
        }
        return help_text(self.usage, self._about, {title: rows for title, rows in sections.items() if rows})


def _reader(one: Parameter) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return _read(one, text)
        except UsageProblem as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read


def _read(one: Parameter, text: str) -> Any:
    if one.type is not int:
        return one.type(text)
    least = one.declared.min
    number = int(text) if text.isascii() and text.lstrip("-").isdigit() and len(text) < 20 else None
    if number is None or (least is not None and number < least):
        raise UsageProblem(
            f"{text[:50]!r} is not a whole number" + (f" of {least} or more" if least is not None else "")
        )
    return number


def _names(one: Parameter) -> str:
    names = ", ".join(sorted(one.flags_on, key=len))
    if one.flags_off:
        names += " / " + ", ".join(one.flags_off)
    return names if one.is_switch else f"{names} {one.metavar}"


def _about(one: Parameter) -> str:
    parts = [one.declared.help] if one.declared.help else []
    if one.is_required:
        parts.append("[required]")
    elif one.declared.show_default and one.default is not None and (not one.is_switch or one.flags_off):
        shown = one.default
        if one.is_switch:
            shown = (one.flags_on if one.default else one.flags_off)[0].lstrip("-")
        parts.append(f"[default: {shown}]")
    return "  ".join(parts)


def help_text(usage: str, about: str, sections: dict[str, Iterable[tuple[str, str]]]) -> str:
    """The text of a help page: how the command is called, what it does, and tables of names with what they mean."""
    width = max(40, min(_WIDEST, terminal_columns()) - 2)
    lines = [usage]
    for paragraph in about.split("\n\n"):
        text = " ".join(paragraph.split())
        lines += ["", *textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")]
    for title, given in sections.items():
        rows = list(given)
        column = min(_NAMES, max(len(name) for name, _ in rows) + 2)
        lines += ["", f"{title}:"]
        for name, meaning in rows:
            wrapped = textwrap.wrap(meaning, max(width - column - 2, 10)) or [""]
            if len(name) + 2 > column:
                lines.append(f"  {name}")
            else:
                lines.append(f"  {name:<{column}}{wrapped.pop(0)}".rstrip())
            lines += [f"  {'':<{column}}{line}" for line in wrapped]
    return "\n".join(lines)


def print_problem(usage: str, prog: str, problem: UsageProblem) -> None:
    """Say on stderr what is wrong with the arguments, and where the help is."""
    print(f"{usage}\nTry '{prog} --help' for help.\n\nError: {problem}", file=sys.stderr)
