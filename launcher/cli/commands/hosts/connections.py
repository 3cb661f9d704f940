"""`launcher connections`: list the connections that `launcher connect` has kept."""

from __future__ import annotations

from launcher.cli import arguments

__all__ = ["connections"]


def connections(is_json: arguments.Json = False) -> None:
    """List the kept connections, the oldest first, and whether they are up."""
    import dataclasses

    from launcher.display.text import clock, seconds
    from launcher.transports.openssh import kept

    found = kept.connections()
    if is_json:
        arguments.print_json(connections=[dataclasses.asdict(one) for one in found])
        return
    if not found:
        print("no kept connections; `launcher connect HOST` opens one")
    for one in found:
        state = "up" if one.is_up else f"gone; `launcher connect {one.host}` opens it again"
        print(
            f"{one.host}  {one.login}  opened {clock(one.opened)}, kept {seconds(one.kept_for)} after its last use: {state}"
        )
