"""The commands of the command line: a table of contents. `launcher --help` prints it and loads no command.

Rule: a command is one line here and a function elsewhere. The function has the annotations of `launcher.cli.parameters` and raises LauncherError when
something goes wrong. To add a command, write the function and its line.
"""

from __future__ import annotations

from launcher.util.frozen import frozen

__all__ = ["COMMANDS", "Command"]


@frozen
class Command:
    """Where the function of a command is (`module:function`), and one line that says what it does."""

    function: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("launcher.cli.commands.run:run", "Run one job of an app, here or on a host."),
    "multirun": Command("launcher.cli.commands.run:run", "Run a sweep of an app, on any number of hosts."),
    "runs": Command("launcher.cli.commands.views.runs:runs", "List the runs, the latest first."),
    "show": Command("launcher.cli.commands.views.show:show", "Show a run, or one job with all its attempts."),
    "report": Command("launcher.cli.commands.views.report:report", "Write the report of a run: a page for a browser."),
    "table": Command(
        "launcher.cli.commands.views.table:table", "Write what jobs were and returned, for other programs."
    ),
    "trace": Command("launcher.cli.commands.views.trace:trace", "Send the trace of a run to OpenTelemetry."),
    "logs": Command("launcher.cli.commands.views.logs:logs", "Show what a job printed."),
    "attach": Command("launcher.cli.commands.attach:attach", "Resume a run: show its progress and finish it."),
    "resume": Command("launcher.cli.commands.attach:attach", "The same as attach."),
    "cancel": Command("launcher.cli.commands.cancel:cancel", "Cancel a run, or one job of it."),
    "retry": Command("launcher.cli.commands.retry:retry", "Run the failed jobs of a run again."),
    "reproduce": Command(
        "launcher.cli.commands.reproduce:reproduce", "Run a job again, and say whether it ends the same way."
    ),
    "doctor": Command("launcher.cli.commands.hosts.doctor:doctor", "Check whether hosts can run jobs, step by step."),
    "prepare": Command(
        "launcher.cli.commands.hosts.prepare:prepare", "Build the environment of packages on hosts, and run nothing."
    ),
    "environments": Command(
        "launcher.cli.commands.hosts.environments:environments", "List the environments of packages on hosts."
    ),
    "gpus": Command(
        "launcher.cli.commands.hosts.gpus:gpus", "Show who has which GPU of a host, for which run and job."
    ),
    "top": Command("launcher.cli.commands.views.top:top", "Show what runs now, on hosts and here."),
    "connect": Command(
        "launcher.cli.commands.hosts.connect:connect", "Log in to hosts once, and keep the connections for your runs."
    ),
    "disconnect": Command("launcher.cli.commands.hosts.disconnect:disconnect", "End kept connections."),
    "connections": Command("launcher.cli.commands.hosts.connections:connections", "List the kept connections."),
    "clean": Command("launcher.cli.commands.clean:clean", "Show what runs left on hosts and here, and remove it."),
    "demo": Command("launcher.cli.commands.demo:demo", "Show a whole run, on a temporary SSH server on this machine."),
}
