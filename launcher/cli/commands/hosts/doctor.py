"""`launcher doctor`: check whether hosts can run jobs, step by step.

Rule: each step is what a run does. The exit code is 0 if every host can run jobs, else 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from launcher.cli import arguments, completion, flags
from launcher.cli.parameters import Argument, Exit
from launcher.errors import HostError

if TYPE_CHECKING:
    from launcher.doctor import Step

__all__ = ["doctor"]

_Given = Annotated[
    list[str] | None,
    Argument(
        metavar="[[USER@]HOST[:PORT][/SLOTS]]...",
        help="The hosts to check (default: those of --hosts, else this machine).",
        show_default=False,
        autocompletion=completion.hosts,
    ),
]


@flags.takes_options(
    "hosts_file", "python", "environment", "extras", "groups", "downloads", "setup", "workdir", "accept_new_host_keys", "ssh", "warm",
)  # fmt: skip
def doctor(hosts: _Given = None, is_json: arguments.Json = False, **given: Any) -> None:
    """Check whether HOSTs can run jobs, step by step, and say what to do about those that cannot.

    Nothing of an application is sent. With an environment, it says what would be sent and built, and builds nothing. The exit code is 0 if every host can run jobs, and 3 if one cannot.
    """
    from launcher.cli.runner import output
    from launcher.doctor import StepOutcome, examine
    from launcher.hosts.inventory import host_specs

    options = flags.conf({"hosts": hosts, **given})
    with output(is_json) as out:
        report: list[dict[str, Any]] = []
        specs = host_specs(None, options)
        locks: dict[str, Any] = {}
        if options.wants_environment or any(spec.environment for spec in specs):
            from launcher.setup.environments import locks_of

            locks = locks_of(specs, options, Path.cwd(), None, may_build=False)
        for spec in specs:
            print(f"{spec.name}:", file=out.people)
            steps = []
            for step in examine(spec, options, locks.get(spec.name)):
                print(_line(step), file=out.people, flush=True)
                steps.append(step)
            is_usable = all(step.outcome is not StepOutcome.FAILED for step in steps)
            report.append({"host": spec.name, "is_usable": is_usable, "steps": [step.to_json() for step in steps]})
        code = 0 if all(one["is_usable"] for one in report) else HostError.exit_code
        out.report({"version": arguments.VERSION, "exit_code": code, "hosts": report})
    raise Exit(code)


def _line(step: Step) -> str:
    from launcher.display.text import clean

    text = f"  {step.outcome.value:<8}{step.name}"
    if step.detail:
        text += f": {clean(step.detail)}".replace("\n", "\n          ")
    return text + (f"\n          next: {clean(step.next_step)}" if step.next_step else "")
