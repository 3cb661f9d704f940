"""Which hosts of a run are known to import its application without anything that would be needed here.

Rule: it is known per host, content of the project, module and environment. A host with variables is never known, because values of
variables are not stored. An environment counts by the content of the file that describes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.code.application import known_imports
from launcher.code.application.known_imports import ImportFacts
from launcher.environments.source import find_source
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from launcher.code.files.snapshot import Snapshot
    from launcher.hosts.host_spec import HostSpec
    from launcher.options import LaunchConf

__all__ = ["import_key", "why_import_here"]


def import_key(
    spec: HostSpec, options: LaunchConf, snapshot: Snapshot, module: str, root: Path | None, script: Path | None
) -> str | None:
    """The key under which it is kept what a host tells; None if it is not kept.

    Args:
        module: the application's.
        root: the file or folder of the application.
        script: the script that is started.
    """
    if spec.env or options.env or options.forward_env or spec.is_local or options.code == "shared":
        return None
    try:
        environment = _environment(spec, options, root, script)
    except (LauncherError, OSError):
        return None
    host = {
        "place": [spec.address, spec.user, spec.port, spec.ssh_config, spec.workdir, spec.fingerprint],
        "python": spec.python or options.python,
        "setup": [*options.setup, *spec.setup],
        "environment": environment,
    }
    return known_imports.key_of(host, snapshot.hash, module)


def _environment(spec: HostSpec, options: LaunchConf, root: Path | None, script: Path | None) -> list[Any] | None:
    word = spec.environment or options.environment
    source = find_source(word, root, script) if word is not None else None
    if source is None:
        return None
    content = hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    return [content, sorted({*options.extras, *spec.extras}), sorted(options.groups)]


def why_import_here(keys: Iterable[str | None], *, uses_process: bool) -> str | None:
    """Why the application has to be imported here before it is composed: empty if nothing is known of a host; None if it need not be.

    Args:
        keys: of all hosts, as `import_key` makes them.
        uses_process: the run's own settings refer to variables of the process.
    """
    all_facts: list[ImportFacts] = []
    for key in keys:
        facts = known_imports.look_up(key) if key is not None else None
        if facts is None:
            return ""
        all_facts.append(facts)
    reasons = {
        "puts configs into the ConfigStore": any(one.configs for one in all_facts),
        "registers resolvers": any(one.resolvers for one in all_facts),
        "changes variables that the config refers to": uses_process and any(one.process for one in all_facts),
    }
    return " and ".join(reason for reason, holds in reasons.items() if holds) or (None if all_facts else "")
