"""Warming up: the zygote does what every job will do, and drops the results.

Rule: it changes nothing that a job could see. It is worth its milliseconds because a forked process pays for each page of
memory that it writes to first: caches that are filled and bytecode that is specialised here are not written to there.
"""

import gc
import logging
import os

from remote_agent.callbacks.base import Callback
from remote_agent.callbacks.composite import Callbacks
from remote_agent.config.nodes import make_config
from remote_agent.hydra.compat import minimal_hydra_node
from remote_agent.job_process.context import LOG_FORMAT, PlainContext, default_handlers, make_context
from remote_agent.job_process.pickles.result import make_result
from remote_agent.job_process.pickles.unpickling import loads
from remote_agent.job_process.run import state_of
from remote_agent.job_process.shutdown import load_stdio, unfinished
from remote_agent.protocol import messages, wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.fields import learn
from remote_agent.protocol.specs.job import EpilogueSpec, ForkSpec, JobSpec

__all__ = ["warm_up", "warm_up_with"]

#: How many calls it takes until CPython has specialised a function's bytecode.
_ROUNDS = 12
_HYDRA_ROUNDS = 4


class _Idle(Callback):
    def on_job_start(self, config: object, **kwargs: object) -> None:
        """Do nothing."""

    def on_job_end(self, config: object, job_return: object, **kwargs: object) -> None:
        """Do nothing."""


def warm_up() -> None:
    """Make contexts, texts, results and frames, and drop them."""
    for carrier in (Envelope, EpilogueSpec, ForkSpec, JobSpec):
        learn(carrier)
    callbacks = Callbacks([("idle", _Idle())])
    record = logging.LogRecord("warm", logging.INFO, __file__, 1, "text", None, None)
    formatter = logging.Formatter(LOG_FORMAT)
    # One object of each class. A job sees few objects, because all objects here are frozen.
    unfinished({type(one): one for one in gc.get_objects()}.values())
    for number in range(_ROUNDS):
        node = minimal_hydra_node(num=number, job_id="x_1", task_overrides=["x=1"], cwd="/x")
        config = {"x": number, "y": {"z": 0.1}, "l": ["a", None, True]}
        context = PlainContext({"config": config, "hydra": node, "task_name": "x"}, dict, "/x", "/x")
        context.yaml_files()
        context.has_edited_cfg()
        context.config.hydra.runtime.output_dir  # noqa: B018  (reading is what is warmed up)
        make_config(context.task_cfg)
        callbacks.fire("on_job_start", {"config": None}, [], _ignore)
        callbacks.fire("on_job_end", {"config": None, "job_return": None}, [], _ignore)
        state_of(callbacks.entries[0].instance)
        for value in (None, {"loss": 0.5}):
            result, _ = make_result(str, value, is_completed=True, may_send_code=False)
            header: messages.Result = {
                "t": "outcome",
                "envelope": {"status": "COMPLETED"},
                "parts": result.parts.to_json(),
                "spent": 0.0,
            }
            wire.encode(header, result.payload)
        formatter.format(record)
        unfinished([record, formatter, node])
    default_handlers(os.devnull)
    load_stdio()
    gc.collect()
    gc.freeze()


def warm_up_with(payload: bytes) -> None:
    """Make the context of a Hydra app's job, and drop it, because similar jobs parse and write the same texts.

    This is not for plain configs, which may contain anything. What Hydra composes is plain data and config classes.
    """
    try:
        for _ in range(_HYDRA_ROUNDS):
            context = make_context(payload, loads, os.sep, os.sep)
            context.yaml_files()
            context.logging_conf()
    except Exception:  # noqa: BLE001 - the job itself reports what is wrong with its payload
        return
    gc.collect()
    gc.freeze()


def _ignore(index: int, entry: object) -> None:
    """Ignore that a hook is called."""
