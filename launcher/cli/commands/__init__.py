"""The commands of the command line: a table of contents, from which `launcher --help` is written without loading any.

Rule: a command is one line here and a function elsewhere: plain, with typer's annotations, raising LauncherError for
what goes wrong. To add one, write the function and its line.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """Where a command's function is (`module:function`), and what it is for, in a line."""

    function: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("launcher.cli.commands.run:launch", "Run one job of an app, here or on a host."),
    "multirun": Command("launcher.cli.commands.run:launch", "Run a sweep of an app, on any number of hosts."),
    "runs": Command("launcher.cli.commands.runs:runs", "List the runs, the latest first."),
    "show": Command("launcher.cli.commands.show:show", "Show a run, or one job with every attempt at it."),
    "logs": Command("launcher.cli.commands.logs:logs", "Show what a job printed."),
    "attach": Command(
        "launcher.cli.commands.attach:attach", "Take a run up where it was left: show its progress and finish it."
    ),
    "resume": Command("launcher.cli.commands.attach:attach", "The same as attach."),
    "cancel": Command("launcher.cli.commands.cancel:cancel", "Cancel a run, or one job of it."),
    "retry": Command("launcher.cli.commands.retry:retry", "Run the failed jobs of a run once more."),
    "reproduce": Command(
        "launcher.cli.commands.reproduce:reproduce", "Run a job again, and say whether it ends the same."
    ),
    "doctor": Command("launcher.cli.commands.doctor:doctor", "Check whether hosts can run jobs, step by step."),
    "clean": Command("launcher.cli.commands.clean:clean", "See what runs have left on hosts and here, and remove it."),
    "demo": Command(
        "launcher.cli.commands.demo:demo", "See all of it work, on a throwaway SSH server on this machine."
    ),
}
