"""The composite: order, kwargs, isolation, policies, and how callbacks are sent to a host."""

from __future__ import annotations

import pickle

import cloudpickle
import pytest

from remote_agent import Callback, Callbacks
from remote_agent.callbacks.base import HOOKS
from remote_agent.callbacks.composite import Entry, callback_entries, callbacks_from_entries
from remote_agent.shared.failure import JobTerminated


class Recorder(Callback):
    """Records every hook that fires."""

    def __init__(self, name, calls):
        self.name = name
        self.calls = calls

    def __getattribute__(self, attribute):
        if attribute in HOOKS:
            name, calls = self.name, self.calls
            return lambda **kwargs: calls.append((name, attribute, kwargs))
        return object.__getattribute__(self, attribute)


KWARGS = {
    "on_run_start": {"config": 1, "config_name": "c"},
    "on_run_end": {"config": 1, "config_name": "c", "job_return": 2},
    "on_multirun_start": {"config": 1, "config_name": "c"},
    "on_multirun_end": {"config": 1, "config_name": "c", "job_returns": [2]},
    "on_job_start": {"config": 1, "task_function": print},
    "on_job_end": {"config": 1, "job_return": 2},
    "on_job_return": {"config": 1, "job_return": 2},
    "on_job_report": {"config": 1, "job": 4, "step": 3, "values": {"loss": 0.5}},
    "on_host_lost": {"config": 1, "host": "gpu1", "jobs": [3]},
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_fire_in_order_with_their_kwargs(hook):
    """Start hooks in composed order, end hooks in reverse. Keyword arguments are passed unchanged."""
    calls = []
    callbacks = Callbacks([(name, Recorder(name, calls)) for name in "abc"])
    records = callbacks.fire(hook, KWARGS[hook])
    order = "cba" if hook.endswith("_end") else "abc"
    assert calls == [(name, hook, KWARGS[hook]) for name in order]
    assert [record["callback"] for record in records] == list(order)
    assert all(record["ok"] and record["error"] is None for record in records)


def test_any_object_with_some_of_the_hooks_is_a_callback():
    """A hook that it does not have does not fire."""

    class Duck:
        def on_job_end(self, config, job_return, **kwargs):
            self.seen = config, job_return

    duck = Duck()
    callbacks = Callbacks([("duck", duck)])
    assert callbacks.fire("on_job_start", {"config": 1, "task_function": None}) == []
    assert len(callbacks.fire("on_job_end", {"config": 1, "job_return": 2})) == 1
    assert duck.seen == (1, 2)
    assert callbacks.has("on_job_end")
    assert not callbacks.has("on_job_start")


def test_the_base_classes_no_ops_do_not_fire():
    """Neither ours nor Hydra's, so there is nothing to announce or record."""
    from hydra.experimental.callback import Callback as HydraCallback

    class Mine(Callback):
        pass

    class Theirs(HydraCallback):
        def on_job_end(self, config, job_return, **kwargs):
            pass

    callbacks = Callbacks([("mine", Mine()), ("theirs", Theirs())])
    assert not callbacks.has("on_job_start")
    assert [record["callback"] for record in callbacks.fire("on_job_end", {"config": 1, "job_return": 2})] == ["theirs"]


class Raises(Callback):
    """Raises the given exception, in both job hooks."""

    def __init__(self, error):
        self.error = error

    def on_job_start(self, config, **kwargs):
        raise self.error

    def on_job_end(self, config, job_return, **kwargs):
        raise self.error


class Hostile(Exception):
    def __str__(self):
        raise SystemExit(1)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Hostile(), GeneratorExit()], ids=repr)
def test_a_hook_that_raises_is_recorded_and_the_others_fire(error, caplog):
    """Whatever it raises: with its traceback, every time, and in the log."""
    calls = []
    callbacks = Callbacks([("a", Recorder("a", calls)), ("b", Raises(error)), ("c", Recorder("c", calls))])
    for _ in range(2):
        records = callbacks.fire("on_job_start", {"config": 1, "task_function": None})
        assert [record["ok"] for record in records] == [True, False, True]
        failure = records[1]
        assert failure["hook"] == "on_job_start"
        assert failure["error"]["type"].endswith(type(error).__name__)
        assert "raise self.error" in failure["error"]["traceback"]
        assert failure["on_error"] == "warn"
    assert [call[0] for call in calls] == ["a", "c", "a", "c"]
    assert len([record for record in caplog.records if "Callback b.on_job_start raised" in record.getMessage()]) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), JobTerminated()], ids=repr)
def test_an_interrupt_stops_start_hooks_at_once_and_end_hooks_afterwards(error):
    """It is recorded and raised."""
    calls = []
    callbacks = Callbacks([("a", Recorder("a", calls)), ("b", Raises(error)), ("c", Recorder("c", calls))])
    records = []
    with pytest.raises(type(error)):
        callbacks.fire("on_job_start", {"config": 1}, records)
    assert [record["callback"] for record in records] == ["a", "b"]
    records = []
    with pytest.raises(type(error)):
        callbacks.fire("on_job_end", {"config": 1, "job_return": 2}, records)
    assert [record["callback"] for record in records] == ["c", "b", "a"]


def test_reports_go_to_the_given_function():
    """`report` replaces the log."""
    seen = []
    Callbacks([("b", Raises(ValueError("no")))], report=seen.append).fire("on_job_start", {"config": 1})
    assert [record["callback"] for record in seen] == ["b"]


def test_the_policy_comes_from_the_override_or_the_class():
    """An unknown policy is refused."""

    class Strict(Raises):
        on_error = "fail"

    def policy(*entry):
        return Callbacks([entry]).fire("on_job_start", {"config": 1})[0]["on_error"]

    assert policy("a", Raises(ValueError())) == "warn"
    assert policy("a", Strict(ValueError())) == "fail"
    assert policy("a", Strict(ValueError()), "abort") == "abort"
    with pytest.raises(ValueError, match="callback 'a': on_error is 'explode'"):
        Callbacks([("a", Raises(ValueError()), "explode")])
    Strict.on_error = "explode"
    with pytest.raises(ValueError, match="explode"):
        Callbacks([("a", Strict(ValueError()))])


def test_only_chosen_callbacks_fire_and_each_is_announced():
    """As an epilogue needs it."""
    calls = []
    callbacks = Callbacks([(name, Recorder(name, calls)) for name in "abc"])

    def announce(index, entry):
        calls.append((index, entry.name))

    callbacks.fire("on_job_end", KWARGS["on_job_end"], entering=announce, only=[0, 2])
    assert [call[:2] for call in calls] == [(2, "c"), ("c", "on_job_end"), (0, "a"), ("a", "on_job_end")]


# -- to a host ----------------------------------------------------------------------------------------------------------


class WithState(Callback):
    """Has state. On request, it cannot be pickled."""

    def __init__(self, text="built"):
        self.text = text

    def __reduce__(self):
        if self.text == "stuck":
            raise TypeError("no pickle of mine")
        return (WithState, (self.text,))


def _instantiate(spec):
    return WithState(spec["text"])


def test_the_state_at_the_start_of_the_run_is_sent():
    """Not the state in which it was built."""
    callback = WithState()
    callback.text = "changed"
    entries = callback_entries(Callbacks([("a", callback, "fail")]), cloudpickle.dumps)
    assert entries[0]["why"] == ""
    arrived, notes = callbacks_from_entries(entries, pickle.loads, _instantiate)
    assert notes == []
    assert arrived.entries[0].instance.text == "changed"
    assert arrived.entries[0].policy == "fail"


def test_a_callback_that_cannot_be_pickled_is_built_on_the_host():
    """From its spec, with a note. Without a spec it is refused before anything is sent."""
    spec = {"_target_": "x.WithState", "text": "from spec"}
    entries = callback_entries(Callbacks([Entry("a", WithState("stuck"), None, spec)]), cloudpickle.dumps)
    assert "no pickle of mine" in entries[0]["why"]
    arrived, notes = callbacks_from_entries(entries, pickle.loads, _instantiate)
    assert arrived.entries[0].instance.text == "from spec"
    assert notes == [
        "callback 'a' was built again on the host from its spec, because it cannot be pickled: TypeError: no pickle of mine"
    ]
    with pytest.raises(ValueError, match="callback 'a' cannot be sent to a host: it cannot be pickled"):
        callback_entries(Callbacks([("a", WithState("stuck"))]), cloudpickle.dumps)


def test_a_callback_whose_class_the_controller_lacks_is_built_on_the_host():
    """There is only a spec, so no hook of it fires here."""
    spec = {"_target_": "far.Away", "text": "far"}
    callbacks = Callbacks([Entry("a", None, None, spec, "its class cannot be imported here")])
    assert callbacks.fire("on_multirun_start", {"config": 1}) == []
    assert callbacks.notes == ["its class cannot be imported here"]
    arrived, notes = callbacks_from_entries(callback_entries(callbacks, cloudpickle.dumps), pickle.loads, _instantiate)
    assert arrived.entries[0].instance.text == "far"
    assert "cannot be imported on the controller" in notes[0]


def test_a_callback_whose_pickle_the_host_cannot_load_is_built_from_its_spec():
    """Without a spec it is an error that names the callback."""
    entry = {"name": "a", "spec": {"text": "x"}, "pickle": b"\x80\x04cno_module\nX\n.", "why": "", "on_error": None}
    arrived, notes = callbacks_from_entries([entry], pickle.loads, _instantiate)
    assert arrived.entries[0].instance.text == "x"
    assert "cannot be loaded here: ModuleNotFoundError" in notes[0]
    with pytest.raises(ValueError, match="callback 'a': its pickle cannot be loaded here"):
        callbacks_from_entries([dict(entry, spec=None)], pickle.loads, _instantiate)
    with pytest.raises(ValueError, match="callback 'a' cannot be built on the host from its spec"):
        callbacks_from_entries([dict(entry, spec={})], pickle.loads, _instantiate)
