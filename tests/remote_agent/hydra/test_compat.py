"""Hydra apps on a host: HydraConfig, resolvers, logging and callbacks for Hydra work there."""

from __future__ import annotations

import os
import pickle
import sys

import cloudpickle
import hydra.core.utils
import pytest
from hydra import compose, initialize_config_dir, version
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from remote_agent import JobError, JobReturn, JobStatus
from remote_agent.hydra import compat
from remote_agent.hydra import state as hydra_state

APP = {
    "hydra_app.py": """
        import logging, os, pickle, sys
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.core.utils import JobReturn, JobStatus
        from hydra.experimental.callback import Callback
        from hydra.utils import get_original_cwd, to_absolute_path
        from omegaconf import DictConfig, OmegaConf

        log = logging.getLogger(__name__)
        OmegaConf.register_new_resolver("of_module", lambda x: "module " + x, replace=True)

        class MyCallback(Callback):
            def __init__(self, bucket, inner=None):
                self.bucket, self.inner = bucket, inner
            def on_job_start(self, config: DictConfig, *, task_function, **kwargs):
                hydra_node = config.hydra
                print("start", self.bucket, hydra_node.job.num, hydra_node.job.id, hydra_node.runtime.output_dir,
                      task_function.__name__, os.environ.get("FROM_JOB"), HydraConfig.get().job.num)
                config.x = 77
            def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs):
                print("end", isinstance(job_return, JobReturn), job_return.status == JobStatus.COMPLETED,
                      job_return.status == JobStatus.FAILED, job_return.task_name, job_return.hydra_cfg.hydra.job.name,
                      "hydra" in job_return.cfg, os.environ.get("FROM_JOB"))

        @hydra.main(version_base=None, config_path="conf", config_name="config")
        def main(cfg: DictConfig):
            log.info("in the app")
            log.debug("a detail")
            act = cfg.get("act")
            if act == "raise": raise ValueError("no good")
            if act == "kill": os.kill(os.getpid(), 9)
            if act == "edit": cfg.x = 5
            hydra_cfg = HydraConfig.get()
            return {
                "x": cfg.x, "cwd": os.getcwd(), "original": get_original_cwd(), "abs": to_absolute_path("f"),
                "name": hydra_cfg.job.name, "num": hydra_cfg.job.num, "id": hydra_cfg.job.id,
                "output_dir": hydra_cfg.runtime.output_dir, "job": cfg.job, "env": os.environ.get("FROM_JOB"),
                "custom": cfg.custom, "module": cfg.module, "now": cfg.now, "has_hydra": "hydra" in cfg,
                "launcher": str(hydra_cfg.launcher._target_), "main": sys.modules["__main__"].__name__,
            }

        if __name__ == "__main__":
            main()
    """,
    "conf/config.yaml": """
        x: 1
        act: null
        job: ${hydra:job.name}
        custom: ${custom:3}
        module: ${of_module:y}
        now: ${now:%Y-%m-%d_%H-%M-%S-%f}
    """,
}


class HydraController:
    """What a controller does for a Hydra app, for tests: compose, capture, send."""

    def __init__(self, host, callbacks=(), version_base="1.3", **spec):
        host.write(APP)
        self.host = host
        offset = 100
        version.setbase(version_base)
        hydra.core.utils.setup_globals()
        OmegaConf.register_new_resolver("custom", lambda value: value + offset, replace=True)
        hydra.core.utils.JobRuntime.instance().set("name", "hydra_app")
        controller = {
            "python": list(sys.version_info[:2]),
            "by_value": False,
            "omegaconf": "2.3.0",
            "hydra": hydra.__version__,
            "cloudpickle": cloudpickle.__version__,
        }
        state = hydra_state.capture(cloudpickle.dumps)
        self.ready = host.start(
            "hydra_app:main", list(callbacks), hydra=state, main_module="hydra_app", controller=controller, **spec
        )
        assert self.ready.header["t"] == "ready", self.ready

    def payload(self, *overrides, num=3, prepare=None):
        with initialize_config_dir(
            str(self.host.code / "conf"), version_base=version.getbase() and str(version.getbase())
        ):
            config = compose("config", list(overrides), return_hydra_config=True)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.num = num
            config.hydra.job.id = f"run_{num}"
            config.hydra.job.name = "hydra_app"
            config.hydra.runtime.cwd = "/on/the/controller"
            config.hydra.overrides.task = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
        if prepare is not None:
            prepare(config)
        HydraConfig.instance().set_config(config)
        self.config = config
        return cloudpickle.dumps(
            {"config": config, "hydra": None, "overrides": list(overrides), "task_name": "hydra_app"}
        )

    def run(self, *overrides, **kwargs):
        return self.host.run(payload=self.payload(*overrides, **kwargs))


MY_CALLBACK = {
    "name": "my_callback",
    "spec": {
        "_target_": "hydra_app.MyCallback",
        "bucket": "b",
        "inner": {"_target_": "hydra_app.MyCallback", "bucket": "in"},
    },
    "pickle": None,
    "why": "a test",
    "on_error": None,
}


@pytest.mark.slow
def test_a_hydra_app_finds_the_same_as_under_hydra(new_host, singletons):
    """HydraConfig, resolvers of Hydra, of the module and of the controller, names, folders, and `${now:}` as on the
    controller.
    """
    host = new_host()
    controller = HydraController(host, [MY_CALLBACK])
    payload = controller.payload("x=2", "+hydra.job.env_set.FROM_JOB='1'", prepare=lambda config: config.now)
    attempt = host.run(payload=payload)
    seen = attempt.part()
    assert seen == {
        "x": 2,
        "cwd": str(host.code),
        "original": str(host.code),
        "abs": str(host.code / "f"),
        "name": "hydra_app",
        "num": 3,
        "id": "run_3",
        "output_dir": str(attempt.output_dir),
        "job": "hydra_app",
        "env": "1",
        "custom": 103,
        "module": "module y",
        "now": controller.config.now,
        "has_hydra": False,
        "launcher": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "main": "hydra_app",
    }
    lines = attempt.stdout.splitlines()
    assert lines[0] == f"start b 3 run_3 {attempt.output_dir} main 1 3"
    assert lines[-1] == "end True True False hydra_app hydra_app False None"
    assert "[hydra_app][INFO] - in the app" in attempt.file("hydra_app.log")
    assert attempt.file(".hydra/overrides.yaml") == "- x=2\n"
    task_cfg = OmegaConf.create(attempt.file(".hydra/config.yaml"))
    assert "hydra" not in task_cfg
    assert task_cfg.x == 2
    written = OmegaConf.create(attempt.file(".hydra/hydra.yaml"))
    assert written.hydra.runtime.output_dir == str(attempt.output_dir)
    assert written.hydra.job.num == 3
    assert attempt.envelope["task_name"] == "hydra_app"
    assert [record["ok"] for record in attempt.envelope["hooks"]] == [True, True]
    with pytest.raises(KeyError):
        attempt.part("cfg")


@pytest.mark.slow
def test_the_files_are_those_that_hydra_writes(new_host, singletons, tmp_path):
    """Compared with Hydra's own run_job on the same config."""
    from hydra.core.utils import run_job
    from hydra.types import HydraContext

    host = new_host()
    controller = HydraController(host)
    overrides = ("x=2", f"hydra.run.dir={tmp_path / 'own'}")
    attempt = controller.run(*overrides)
    config = pickle.loads(controller.payload(*overrides))["config"]
    from hydra._internal.callbacks import Callbacks

    OmegaConf.register_new_resolver("of_module", lambda x: "module " + x, replace=True)
    ret = run_job(
        task_function=lambda cfg: 1,
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=None, callbacks=Callbacks()),
        configure_logging=False,
    )
    assert ret.status == hydra.core.utils.JobStatus.COMPLETED
    for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
        own = (tmp_path / "own" / ".hydra" / name).read_text()
        here = attempt.file(f".hydra/{name}")
        own = own.replace(str(tmp_path / "own") + "\n    choices", str(attempt.output_dir) + "\n    choices")
        own = own.replace("cwd: /on/the/controller", f"cwd: {host.code}")
        if name == "hydra.yaml":
            own = own.replace(f"output_dir: {tmp_path / 'own'}", f"output_dir: {attempt.output_dir}")
        assert here == own
    OmegaConf.clear_resolver("of_module")


@pytest.mark.slow
def test_failures_edits_and_epilogues_work_for_hydra_apps(new_host, singletons):
    """A FAILED job equals Hydra's FAILED, edits of the app come back, and a killed job has its epilogue."""
    host = new_host()
    controller = HydraController(host, [MY_CALLBACK])
    attempt = controller.run("act=raise")
    assert isinstance(attempt.part(), ValueError)
    assert "end True False True" in attempt.stdout
    assert "no good" in attempt.file("hydra_app.log")
    attempt = controller.run("act=edit")
    assert attempt.part("cfg").x == 5
    payload = controller.payload("act=kill")
    dead = host.run(payload=payload)
    ended = host.wait_end(host.epilogue(dead, payload, {"kind": "killed", "signal": 9}))
    assert "end True False True hydra_app hydra_app False" in ended.stdout
    assert ended.envelope["status"] == "FAILED"


@pytest.mark.slow
def test_hydras_own_callbacks_work_next_to_ours(new_host, singletons):
    """Unchanged. Their pickles load here, config.pickle works for Hydra's rerun, and no file is empty."""
    host = new_host()
    names = {
        "log": "hydra.experimental.callbacks.LogJobReturnCallback",
        "pickle": "hydra.experimental.callbacks.PickleJobInfoCallback",
        "our_log": "remote_agent.callbacks.LogJobReturnCallback",
    }
    entries = [
        {"name": name, "spec": {"_target_": target}, "pickle": None, "why": "a test", "on_error": None}
        for name, target in names.items()
    ]
    controller = HydraController(host, entries)
    attempt = controller.run("x=4")
    assert all(record["ok"] for record in attempt.envelope["hooks"]), attempt.envelope["hooks"]
    log = attempt.file("hydra_app.log")
    assert "[hydra.experimental.callbacks.LogJobReturnCallback][INFO] - Succeeded with return value: {'x': 4" in log
    assert "[remote_agent.callbacks.LogJobReturnCallback][INFO] - Succeeded with return value: {'x': 4" in log
    config = pickle.loads((attempt.output_dir / ".hydra" / "config.pickle").read_bytes())
    assert config.x == 4
    assert OmegaConf.get_type(config, "hydra") is hydra.conf.HydraConf
    job_return = pickle.loads((attempt.output_dir / ".hydra" / "job_return.pickle").read_bytes())
    assert isinstance(job_return, hydra.core.utils.JobReturn)
    assert job_return.status == hydra.core.utils.JobStatus.COMPLETED
    assert job_return.return_value["x"] == 4


@pytest.mark.slow
def test_job_logging_and_verbose_are_honoured(new_host, singletons):
    """hydra.job_logging and hydra.verbose."""
    host = new_host()
    controller = HydraController(host)
    assert "a detail" not in controller.run().file("hydra_app.log")
    assert "a detail" in controller.run("hydra.verbose=true").file("hydra_app.log")
    attempt = controller.run("hydra/job_logging=none")
    assert not (attempt.output_dir / "hydra_app.log").exists()
    attempt = controller.run("hydra.job_logging.formatters.simple.format='<%(message)s>'")
    assert "<in the app>" in attempt.file("hydra_app.log")


def test_hydra_apps_run_under_other_pythons(new_host, singletons, python):
    """The bundle brings Hydra. A resolver that is pickled by value is missing if the minor version differs, and a
    note says so.
    """
    host = new_host(python)
    controller = HydraController(host, [MY_CALLBACK])
    attempt = controller.run("x=2", "custom=9")
    assert attempt.part()["x"] == 2, attempt.error
    assert "end True True False" in attempt.stdout
    differs = not controller.ready.header["python"].startswith("{}.{}.".format(*sys.version_info[:2]))
    notes = [note for note in controller.ready.header["notes"] if "resolver" in note]
    assert bool(notes) is differs
    if differs:
        assert "the resolver 'custom' of the controller is not known on the host: it is pickled by value" in notes[0]


@pytest.mark.slow
@pytest.mark.parametrize(("base", "moves"), [("1.1", True), ("1.3", False)])
def test_version_base_decides_chdir(new_host, singletons, base, moves):
    """It is sent. Otherwise a new process would use Hydra 1.1's default."""
    host = new_host()
    attempt = HydraController(host, version_base=base).run()
    assert attempt.part()["cwd"] == (str(attempt.output_dir) if moves else str(host.code))
    assert attempt.part()["original"] == str(host.code)


@pytest.mark.slow
def test_chdir_is_honoured(new_host, singletons):
    """hydra.job.chdir=true."""
    attempt = HydraController(new_host()).run("hydra.job.chdir=true")
    assert attempt.part()["cwd"] == str(attempt.output_dir)


@pytest.mark.slow
def test_a_missing_plugin_gets_stand_ins(new_host, singletons, tmp_path, monkeypatch):
    """For its config classes. Pickles made there load here as the real classes."""
    package = tmp_path / "plugins" / "hydra_plugins" / "far_plugin"
    package.mkdir(parents=True)
    (package / "conf.py").write_text(
        "from dataclasses import dataclass\nfrom enum import Enum\n"
        "class Way(Enum):\n    UP = 1\n"
        "@dataclass\nclass FarConf:\n    _target_: str = 'hydra_plugins.far_plugin.Far'\n    way: Way = Way.UP\n    count: int = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    import importlib

    conf = importlib.import_module("hydra_plugins.far_plugin.conf")

    def prepare(config):
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.launcher = OmegaConf.structured(conf.FarConf)

    host = new_host()
    entry = {
        "name": "p",
        "spec": {"_target_": "remote_agent.PickleJobInfoCallback"},
        "pickle": None,
        "why": "x",
        "on_error": None,
    }
    attempt = HydraController(host, [entry]).run(prepare=prepare)
    assert attempt.envelope["status"] == "COMPLETED", attempt.error["traceback"]
    assert attempt.part()["launcher"] == "hydra_plugins.far_plugin.Far"
    assert "count: 3" in attempt.file(".hydra/hydra.yaml")
    config = pickle.loads((attempt.output_dir / ".hydra" / "config.pickle").read_bytes())
    assert config.hydra.launcher.count == 3
    assert config.hydra.launcher.way is conf.Way.UP
    assert OmegaConf.get_type(config.hydra.launcher) is conf.FarConf


# -- capture, as_hydra, and the small things -------------------------------------------------------------------------


def test_a_job_return_is_also_hydras():
    """Hydra's type and status, with our fields. It pickles as either."""
    made = JobReturn(status=JobStatus.FAILED, error=JobError("exception", "ValueError", "no"), num=3, host="gpu1")
    theirs = compat.as_hydra(made)
    assert isinstance(theirs, hydra.core.utils.JobReturn)
    assert isinstance(theirs, JobReturn)
    assert theirs.status == hydra.core.utils.JobStatus.FAILED
    assert theirs.num == 3
    assert compat.as_hydra(theirs) is theirs
    back = pickle.loads(pickle.dumps(theirs))
    assert isinstance(back, hydra.core.utils.JobReturn)
    assert back.error == made.error
    assert back.status == hydra.core.utils.JobStatus.FAILED


def test_a_derived_job_return_keeps_its_class():
    """The controller's decodes its configs when they are read, even as Hydra's."""

    class Lazy(JobReturn):
        @property
        def cfg(self):
            return "decoded"

        @cfg.setter
        def cfg(self, value):
            pass

    assert compat.as_hydra(Lazy()).cfg == "decoded"


def test_instantiate_works_without_hydra(monkeypatch):
    """The plain part of Hydra's rules: nesting, lists, arguments, partial."""
    monkeypatch.setitem(sys.modules, "hydra.utils", None)
    made = compat.instantiate(
        {
            "_target_": "builtins.dict",
            "inner": {"_target_": "fractions.Fraction", "_args_": [1, 2]},
            "items": [{"_target_": "builtins.str", "_args_": [3]}, 4],
            "later": {"_target_": "os.path.join", "_partial_": True, "_args_": ["a"]},
        }
    )
    assert made["inner"] * 2 == 1
    assert made["items"] == ["3", 4]
    assert made["later"]("b") == os.path.join("a", "b")
    with pytest.raises(ImportError):
        compat.instantiate({"_target_": "no_such_module.Thing"})
