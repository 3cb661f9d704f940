"""Every module that decides something has its test file: `launcher/X/y.py` in `tests/launcher/X/test_y.py`."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for package in ("launcher", "remote_agent")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)

#: Modules that decide nothing: types, names and tables; what others pass on; programs that are run as text.
DECIDE_NOTHING = {
    "launcher/agents/facts.py": "types",
    "launcher/cli/arguments.py": "arguments that commands share",
    "launcher/demo/app/my_app.py": "the application of the demo",
    "launcher/display/base.py": "types",
    "launcher/display/console.py": "makes rich's console",
    "launcher/display/controls.py": "types",
    "launcher/engine/protocols.py": "types",
    "launcher/engine/requests.py": "types",
    "launcher/events/hosts.py": "types",
    "launcher/events/jobs.py": "types",
    "launcher/events/run.py": "types",
    "launcher/setup/kinds/probe.py": "the setup of one probe: two constants",
    "launcher/former/late_config.py": "a name that stands in old pickles",
    "launcher/former/returns.py": "a name that stands in old pickles",
    "launcher/former/run_record.py": "a name that stands in old pickles",
    "launcher/transports/base.py": "types",
    "remote_agent/former/builtin_callbacks.py": "a name that stands in old pickles",
    "remote_agent/former/callback.py": "a name that stands in old pickles",
    "remote_agent/callbacks/base.py": "the contract",
    "remote_agent/former/current_job.py": "a name that stands in old pickles",
    "remote_agent/former/hydra_scope.py": "a name that stands in old pickles",
    "remote_agent/protocol/messages/agent.py": "types",
    "remote_agent/protocol/messages/controller.py": "types",
    "remote_agent/protocol/messages/job.py": "types",
    "remote_agent/protocol/messages/zygote.py": "types",
    "remote_agent/shared/job_log.py": "two loggers",
    "remote_agent/slurm/batch/batch.py": "types",
    "remote_agent/slurm/pool/order.py": "types",
}

#: Modules that are tested under another name, mostly together with those that they work with: module -> test file below `tests`.
TESTED_IN = {
    "launcher/agents/attempt_receiver.py": "launcher/agents/test_receiver.py",
    "launcher/agents/link.py": "launcher/agents/test_connection.py",
    "launcher/agents/plan.py": "launcher/agents/test_connection.py",
    "launcher/agents/queries/query.py": "launcher/cli/test_commands.py",
    "launcher/api.py": "launcher/session/test_session.py",
    "launcher/app_run.py": "launcher/cli/test_main.py",
    "launcher/bootstrap/hydra_fallbacks.py": "launcher/bootstrap/test_bundle.py",
    "launcher/bootstrap/stage0.py": "launcher/bootstrap/test_start.py",
    "launcher/bootstrap/unpack.py": "launcher/bootstrap/test_start.py",
    "launcher/cli/commands/attach.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/cancel.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/hosts/connect.py": "launcher/cli/test_kept_connections.py",
    "launcher/cli/commands/hosts/connections.py": "launcher/cli/test_kept_connections.py",
    "launcher/cli/commands/hosts/disconnect.py": "launcher/cli/test_kept_connections.py",
    "launcher/cli/commands/clean.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/demo.py": "launcher/demo/test_demo.py",
    "launcher/cli/commands/hosts/doctor.py": "launcher/test_doctor.py",
    "launcher/cli/commands/hosts/environments.py": "end_to_end/test_environment_commands.py",
    "launcher/cli/commands/hosts/gpus.py": "launcher/cli/test_gpus.py",
    "launcher/cli/commands/views/logs.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/hosts/prepare.py": "end_to_end/test_environment_commands.py",
    "launcher/cli/commands/reproduce.py": "hydra/test_reproduce.py",
    "launcher/cli/commands/retry.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/run.py": "launcher/cli/test_main.py",
    "launcher/cli/commands/views/runs.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/views/show.py": "launcher/cli/test_commands.py",
    "launcher/cli/commands/views/trace.py": "end_to_end/test_trace.py",
    "launcher/cli/command_loader.py": "launcher/cli/test_main.py",
    "launcher/cli/flags.py": "launcher/cli/test_main.py",
    "launcher/cli/past_hosts.py": "launcher/cli/test_commands.py",
    "launcher/cli/parameters.py": "launcher/cli/test_parser.py",
    "launcher/cli/shells.py": "launcher/cli/test_completion.py",
    "launcher/cli/waiting/ending.py": "launcher/cli/waiting/test_waiting.py",
    "launcher/cli/waiting/follow.py": "launcher/cli/waiting/test_waiting.py",
    "launcher/cli/waiting/served.py": "launcher/cli/waiting/test_waiting.py",
    "launcher/cli/printing.py": "launcher/cli/test_main.py",
    "launcher/cli/runner.py": "launcher/cli/test_main.py",
    "launcher/code/files/file_hashes.py": "launcher/code/files/test_snapshot.py",
    "launcher/code/files/project_files.py": "launcher/code/files/test_snapshot.py",
    "launcher/demo/server.py": "launcher/transports/test_transports.py",
    "launcher/engine/decider.py": "launcher/engine/test_dispatcher.py",
    "launcher/engine/effects.py": "launcher/engine/test_dispatcher.py",
    "launcher/engine/host_words.py": "launcher/engine/test_dispatcher.py",
    "launcher/session/jobs/arrivals.py": "launcher/session/test_session.py",
    "launcher/engine/engine.py": "launcher/engine/test_dispatcher.py",
    "launcher/engine/scheduling/policies.py": "launcher/engine/scheduling/test_scheduler.py",
    "launcher/hosts/fields.py": "launcher/hosts/test_inventory.py",
    "launcher/hosts/host_spec.py": "launcher/hosts/test_inventory.py",
    "launcher/options/fields.py": "launcher/options/test_launch_conf.py",
    "launcher/pickled.py": "stored/test_names.py",
    "launcher/preparation.py": "end_to_end/test_environment_commands.py",
    "launcher/reproduce/received_config.py": "end_to_end/test_received_folder.py",
    "launcher/reproduce/reproduce.py": "hydra/test_reproduce.py",
    "launcher/reproduce/find.py": "hydra/test_reproduce.py",
    "launcher/reproduce/from_files.py": "hydra/test_reproduce.py",
    "launcher/reproduce/from_journal.py": "hydra/test_reproduce.py",
    "launcher/reproduce/target.py": "hydra/test_reproduce.py",
    "launcher/results/job_streams.py": "launcher/results/test_output_folder.py",
    "launcher/results/decoding.py": "end_to_end/test_safe_results.py",
    "launcher/results/job_returns.py": "end_to_end/test_safe_results.py",
    "launcher/results/plain.py": "launcher/tables/test_table.py",
    "launcher/results/writing.py": "launcher/results/test_output_folder.py",
    "launcher/runs/journal_format.py": "launcher/runs/test_journal.py",
    "launcher/runs/ownership.py": "end_to_end/test_received_folder.py",
    "launcher/runs/result_file.py": "launcher/agents/test_receiver.py",
    "launcher/runs/status.py": "launcher/cli/test_commands.py",
    "launcher/serialization/plain_records.py": "launcher/serialization/test_plain_values.py",
    "launcher/serialization/plain_text.py": "launcher/serialization/test_plain_values.py",
    "launcher/session/run_session.py": "launcher/session/test_session.py",
    "launcher/session/jobs/job.py": "launcher/session/test_executor.py",
    "launcher/session/loop.py": "launcher/session/test_session.py",
    "launcher/session/jobs/returns.py": "launcher/session/test_session.py",
    "launcher/session/stopping/signals.py": "simulation/test_signals.py",
    "launcher/session/thread.py": "launcher/session/test_executor.py",
    "launcher/setup/kinds/again.py": "hydra/test_reproduce.py",
    "remote_agent/slurm/submitter/submitter.py": "end_to_end/test_slurm.py",
    "remote_agent/slurm/submitter/submitter_log.py": "end_to_end/test_slurm.py",
    "launcher/setup/callbacks.py": "launcher/session/test_session.py",
    "launcher/setup/code.py": "launcher/setup/kinds/test_run_setup.py",
    "launcher/setup/folders.py": "launcher/runs/test_folder.py",
    "launcher/setup/kinds/hydra.py": "launcher/setup/kinds/test_run_setup.py",
    "launcher/setup/kinds/plain_app.py": "launcher/setup/kinds/test_run_setup.py",
    "launcher/setup/jobs/payload.py": "launcher/setup/kinds/test_run_setup.py",
    "launcher/setup/policies.py": "launcher/session/test_session.py",
    "launcher/setup/prepared.py": "launcher/setup/kinds/test_run_setup.py",
    "launcher/setup/from_journal.py": "launcher/session/test_resumed.py",
    "launcher/setup/jobs/run_pickler.py": "launcher/serialization/test_pickler.py",
    "launcher/tracing/sdk_spans.py": "launcher/tracing/test_sending.py",
    "launcher/tracing/span.py": "launcher/tracing/test_spans.py",
    "launcher/cli/commands/views/top.py": "launcher/cli/test_top.py",
    "launcher/util/library_log.py": "launcher/test_notification.py",
    "launcher/terminal/controls.py": "end_to_end/test_live_part.py",
    "launcher/terminal/job_output.py": "launcher/cli/test_commands.py",
    "launcher/terminal/top/top.py": "launcher/cli/test_top.py",
    "launcher/terminal/top/use.py": "launcher/cli/test_top.py",
    "launcher/transports/factory.py": "launcher/transports/test_transports.py",
    "launcher/transports/openssh/command.py": "launcher/transports/openssh/test_transport.py",
    "launcher/transports/openssh/log.py": "launcher/transports/openssh/test_transport.py",
    "launcher/transports/openssh/messages.py": "launcher/transports/ssh/test_connect.py",
    "launcher/transports/ssh/keys.py": "launcher/transports/ssh/test_authentication.py",
    "launcher/transports/ssh/link.py": "launcher/transports/test_transports.py",
    "launcher/transports/ssh/preconnect.py": "launcher/transports/test_early_connections.py",
    "launcher/transports/ssh/route.py": "launcher/transports/test_transports.py",
    "launcher/transports/ssh/sockets.py": "launcher/transports/ssh/test_connect.py",
    "launcher/transports/ssh/transport.py": "launcher/transports/test_transports.py",
    "remote_agent/__main__.py": "remote_agent/agent/link/test_controller.py",
    "remote_agent/agent/jobs/job_messages.py": "remote_agent/agent/test_agent_machine.py",
    "remote_agent/agent/jobs/shutdown.py": "remote_agent/job_process/test_shutdown.py",
    "remote_agent/agent/resources/shares.py": "remote_agent/agent/jobs/test_queue.py",
    "remote_agent/agent/spool/other_runs.py": "remote_agent/agent/test_cleaning.py",
    "remote_agent/agent/spool/file_checks.py": "remote_agent/agent/spool/test_attempts.py",
    "remote_agent/agent/spool/records.py": "remote_agent/agent/spool/test_attempts.py",
    "remote_agent/agent/spool/syncer.py": "remote_agent/agent/test_agent_machine.py",
    "remote_agent/agent/zygotes/client.py": "remote_agent/agent/zygotes/test_pool.py",
    "remote_agent/by_reference.py": "stored/test_names.py",
    "remote_agent/debugger.py": "hydra/test_reproduce.py",
    "remote_agent/job.py": "stored/test_names.py",
    "remote_agent/job_process/pickles/config_pickle.py": "hydra/test_reproduce.py",
    "remote_agent/job_process/context.py": "remote_agent/job_process/test_run.py",
    "remote_agent/job_process/current.py": "launcher/session/test_session.py",
    "remote_agent/job_process/pickles/unpickling.py": "launcher/serialization/test_by_value.py",
    "remote_agent/probe.py": "launcher/test_doctor.py",
    "remote_agent/zygote/child.py": "remote_agent/zygote/test_server.py",
    "remote_agent/zygote/entry.py": "remote_agent/zygote/test_server.py",
    "remote_agent/zygote/imports/preload.py": "remote_agent/agent/zygotes/test_spare.py",
    "remote_agent/zygote/respawn.py": "remote_agent/zygote/test_native_threads.py",
    "remote_agent/protocol/specs/warm.py": "remote_agent/agent/zygotes/test_warm.py",
    "remote_agent/system/waiting/warm_store.py": "remote_agent/agent/zygotes/test_warm.py",
    "remote_agent/zygote/warm.py": "remote_agent/agent/zygotes/test_warm.py",
    "remote_agent/zygote/warm_up.py": "remote_agent/zygote/test_server.py",
}


def mirror_of(module: Path) -> Path:
    """The test file that has the module's name."""
    return ROOT / "tests" / module.parent / f"test_{module.name.lstrip('_')}"


def test_every_module_has_its_test_file() -> None:
    """Under its own name, or in one that a table names. A new module that decides something needs one of its own."""
    known = {*DECIDE_NOTHING, *TESTED_IN}
    missing = [
        module.as_posix() for module in MODULES if not mirror_of(module).exists() and module.as_posix() not in known
    ]
    assert missing == [], f"write {[mirror_of(Path(module)).relative_to(ROOT).as_posix() for module in missing]}"


def test_the_test_files_that_the_table_names_are_there() -> None:
    """They were not renamed without it."""
    assert [test for test in TESTED_IN.values() if not (ROOT / "tests" / test).exists()] == []


def test_no_module_of_the_table_has_a_test_file_of_its_name() -> None:
    """Its line goes when it gets one."""
    assert [module for module in TESTED_IN if mirror_of(Path(module)).exists()] == []


def test_the_tables_name_modules_that_there_are() -> None:
    """A line that is about nothing goes."""
    assert {*DECIDE_NOTHING, *TESTED_IN} <= {module.as_posix() for module in MODULES}


def test_ci_names_tests_that_there_are() -> None:
    """Where tests move, the lists of those that run on other systems and versions move, too."""
    script = (ROOT / ".ci/run").read_text()
    lists = [
        script[script.index(name) :].split("\n)", 1)[0] + "\n)"
        for name in ("touched_by_others=(", "touched_by_macos=(")
    ]
    shown = 'printf "%s\\n" "${touched_by_others[@]}" "${touched_by_macos[@]}"'
    named = subprocess.run(["bash", "-c", "\n".join([*lists, shown])], check=True, capture_output=True, text=True)
    paths = named.stdout.split()
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
