"""What a job is sent with: its config and `hydra` node, or what its task is called with, as bytes.

Rule: what cannot be sent fails the job, by name, and no other job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launcher.code.application.task import check_task
from launcher.config.lazy import check_config_kind
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from launcher.setup.kinds.run_setup import RunSetup

__all__ = ["job_payload"]


def job_payload(
    setup: RunSetup,
    num: int,
    task: Any,
    config: Any,
    overrides: Sequence[str],
    call: tuple[tuple[Any, ...], dict[str, Any]] | None,
) -> tuple[bytes, tuple[str, str] | None]:
    """Return the payload of a job, and (kind, message) of its failure if it cannot be sent. `call`: what its task is called with, in place of
    a config.

    Raises:
        UsageError: the task cannot be called so.
    """
    content: dict[str, Any] = {
        "config": config if config is not None else {},
        "hydra": setup.node(num, overrides),
        "overrides": list(overrides),
        "task_name": setup.task_name,
    }
    if task is not None and not setup.pickler.is_shared(task):
        check_task(task, with_config=call is None)
        content["task"] = task
    payload, failure = b"", None
    try:
        if call is not None:
            # They have their own bytes, because the host reads the config twice and these once.
            content["call"] = setup.pickler.dumps(call)
        else:
            check_config_kind(config)
        payload = setup.pickler.dumps(content)
    except ConfigError as error:
        failure = ("config", str(error))
    except Exception as error:  # noqa: BLE001
        what = "the config" if call is None else "what it is called with"
        failure = ("config", f"{what} cannot be pickled: {type(error).__name__}: {error}")
    # The bytes are searched first, because most configs of most sweeps refer to nothing.
    if b"${" in payload:
        from launcher.config.interpolations import unresolved

        for problem in unresolved(setup.with_node(config, num, overrides)):
            failure = ("config", f"the config does not resolve: {problem}")
            break
    return payload, failure
