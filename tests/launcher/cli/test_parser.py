"""How the arguments of a command are read, and what its help says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest

from launcher.cli.parameters import Argument, CommandName, Exit, Option, parameters_of
from launcher.cli.parser import Parser, UsageProblem


def command(
    called: CommandName,
    app: Annotated[str, Argument(help="The app.")],
    words: Annotated[list[str] | None, Argument(metavar="WORDS")] = None,
    hosts: Annotated[list[str] | None, Option("--host", "-H", metavar="HOST", help="Hosts. Repeatable.")] = None,
    config_dir: Annotated[Path | None, Option("--config-dir", "-cd", metavar="DIR")] = None,
    limit: Annotated[int, Option("--limit", "-n", min=1)] = 20,
    live: Annotated[bool | None, Option("--live/--no-live", help="Show output.")] = None,
    hooks: Annotated[bool, Option("--hooks/--no-hooks")] = False,
    is_json: Annotated[bool, Option("--json")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q")] = False,
    other: int = 7,
) -> None:
    """Do something."""


@pytest.fixture
def parser() -> Parser:
    """The parser of a command with one parameter of each kind."""
    return Parser("launcher command", "Do something.\n\nIt is done\nat once.", parameters_of(command)[0])


DEFAULTS: dict[str, Any] = {
    "words": None,
    "hosts": None,
    "config_dir": None,
    "limit": 20,
    "live": None,
    "hooks": False,
    "is_json": False,
    "quiet": False,
}


@pytest.mark.parametrize(
    ("args", "values"),
    [
        ("app", {}),
        ("--host a app x=1 -H b y=2", {"hosts": ["a", "b"], "words": ["x=1", "y=2"]}),
        ("app --host=a -Hb", {"hosts": ["a", "b"]}),
        ("app -cd here", {"config_dir": Path("here")}),
        ("app --config-dir=here -n3", {"config_dir": Path("here"), "limit": 3}),
        ("app --live", {"live": True}),
        ("app --live --no-live", {"live": False}),
        ("app --hooks --json -q", {"hooks": True, "is_json": True, "quiet": True}),
        ("app ~gone +new=-1 a.b=[1,2]", {"words": ["~gone", "+new=-1", "a.b=[1,2]"]}),
        ("app -- --host -x", {"words": ["--host", "-x"]}),
        ("-q -- app --json", {"quiet": True, "words": ["--json"]}),
        ("app -", {"words": ["-"]}),
    ],
)
def test_options_stand_anywhere(args: str, values: dict[str, Any], parser: Parser) -> None:
    """Before and after the arguments, with the value beside them or behind `=`, until `--` ends them. The rest keeps its order."""
    assert parser.parse(args.split()) == {"app": "app", **DEFAULTS, **values}


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ("", "missing argument APP"),
        ("app --hots a", r"no such option: --hots .*--host"),
        ("app --hots=a", "no such option: --hots "),
        ("app --hos a", "no such option: --hos "),
        ("app -x", "no such option: -x"),
        ("app --host", "--host.*expected one argument"),
        ("app -n 0", "'0' is not a whole number of 1 or more"),
        ("app -n many", "'many' is not a whole number of 1 or more"),
        ("app --json=yes", "--json"),
    ],
)
def test_a_wrong_argument_is_named(args: str, problem: str, parser: Parser) -> None:
    """An option has to be written whole; an unknown one names the nearest."""
    with pytest.raises(UsageProblem, match=problem):
        parser.parse(args.split())


def test_arguments_that_nobody_takes_are_refused() -> None:
    """A command without a list of arguments names those that are too many."""

    def small(run: Annotated[str, Argument()] = "last") -> None:
        """Show."""

    parser = Parser("launcher small", "Show.", parameters_of(small)[0])
    assert parser.parse([]) == {"run": "last"}
    assert parser.usage == "Usage: launcher small [OPTIONS] [RUN]"
    with pytest.raises(UsageProblem, match="unexpected extra arguments: two three"):
        parser.parse(["one", "two", "three"])


def test_the_help_says_everything(
    parser: Parser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--help` anywhere prints the usage, the description, and each argument and option with its default."""
    monkeypatch.setenv("COLUMNS", "70")
    with pytest.raises(Exit) as leaving:
        parser.parse(["--host", "a", "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == (
        "Usage: launcher command [OPTIONS] APP [WORDS]\n\n"
        "  Do something.\n\n"
        "  It is done at once.\n\n"
        "Arguments:\n"
        "  APP    The app.  [required]\n"
        "  WORDS\n\n"
        "Options:\n"
        "  -H, --host HOST        Hosts. Repeatable.\n"
        "  -cd, --config-dir DIR\n"
        "  -n, --limit INTEGER    [default: 20]\n"
        "  --live / --no-live     Show output.\n"
        "  --hooks / --no-hooks   [default: no-hooks]\n"
        "  --json\n"
        "  -q, --quiet\n"
        "  --help                 Show this message and exit.\n"
    )


def test_the_help_fits_the_terminal(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than it, down to 42 columns."""
    monkeypatch.setenv("COLUMNS", "44")
    assert max(map(len, parser.help().splitlines()[1:])) <= 44


def test_a_command_may_ask_for_its_name() -> None:
    """One function may be two commands; what is no option of it is left alone."""
    parameters, own_name = parameters_of(command)
    assert own_name == "called"
    assert not {"called", "other"} & {one.name for one in parameters}
