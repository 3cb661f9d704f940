"""What the scheduler does when something fails, as the options of the run say it."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.engine.scheduling.policies import Policies
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from remote_agent.callbacks.composite import Callbacks

__all__ = ["policies_of"]

#: Seconds to wait for an outcome after all timeouts, before its host is given up. By then a dead link is known to be
#: dead.
_SLACK = 30.0


def policies_of(options: LaunchConf, hosts: Sequence[HostSpec], callbacks: Callbacks) -> Policies:
    """The policies of a run. `callbacks` are read when they are needed, because the start hook may change their policies."""
    # Every hook may take its full time twice: in the job, and in the epilogue if it had to be killed in the job.
    end = 2 * options.hook_timeout + options.shutdown_seconds + options.children_timeout + _SLACK
    return Policies(
        retries=options.retries_by_kind,
        on_host_loss=options.on_host_loss,
        host_loss_timeout=options.host_loss_timeout,
        max_failures=1 if options.fail_fast else options.max_failures,
        callbacks=lambda: _told_callbacks(callbacks),
        slots={spec.name: spec.slots for spec in hosts if isinstance(spec.slots, int)},
        job_limit=options.timeout + options.grace + end if options.timeout is not None else None,
        end_limit=options.grace + end,
        kill_limit=end,
    )


def _told_callbacks(callbacks: Callbacks) -> dict[str, bool]:
    """Return the callbacks that hosts get, each with whether one of its hooks may stop the run.

    This is asked when a host says that a hook stopped the run. Only the host knows the policy of a class that cannot be imported here.
    """
    return {
        entry.name: entry.policy == "abort" or (entry.instance is None and entry.on_error is None)
        for entry in callbacks
    }
