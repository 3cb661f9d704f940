"""The sources of an application that records everything that Hydra shows to an application and a callback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FILES", "facts"]

_PROBE = '''
"""Callbacks in a sibling module, which write down what they are given."""

import json
import logging
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import OmegaConf

log = logging.getLogger(__name__)


def tell(folder, **fact):
    with open(Path(folder) / "facts.jsonl", "a") as file:
        file.write(json.dumps(fact) + "\\n")


def missing(config, key):
    return OmegaConf.is_missing(OmegaConf.select(config, key.rpartition(".")[0]), key.rpartition(".")[2])


class Probe(Callback):
    def __init__(self, name, params=None):
        self.name = name
        self.params = params
        self.seen = []

    def _start(self, hook, config, kwargs):
        self.seen.append(hook)
        config.edited = f"by {hook}"
        tell(
            ".",
            hook=hook,
            callback=self.name,
            kwargs=sorted(kwargs),
            config_name=kwargs["config_name"],
            missing=[key for key in ("hydra.runtime.output_dir", "hydra.job.num", "hydra.job.id") if missing(config, key)],
            cwd=config.hydra.runtime.cwd,
            mode=str(config.hydra.mode),
            overrides=list(config.hydra.overrides.task),
            is_configured=HydraConfig.initialized(),
        )

    def on_run_start(self, config, **kwargs):
        self._start("on_run_start", config, kwargs)

    def on_multirun_start(self, config, **kwargs):
        self._start("on_multirun_start", config, kwargs)

    def _end(self, hook, config, kwargs):
        tell(
            ".",
            hook=hook,
            callback=self.name,
            kwargs=sorted(set(kwargs) - {"job_returns"}),
            seen=self.seen,
            edited=config.edited,
        )

    def on_run_end(self, config, **kwargs):
        self._end("on_run_end", config, kwargs)

    def on_multirun_end(self, config, **kwargs):
        self._end("on_multirun_end", config, kwargs)

    def on_job_start(self, config, *, task_function: TaskFunction, **kwargs):
        self.seen.append("on_job_start")
        hydra = config.hydra
        log.info("a line of %s", self.name)
        config.x = 1000  # an edit that the application must not see
        tell(
            hydra.runtime.output_dir,
            hook="on_job_start",
            callback=self.name,
            kwargs=sorted(kwargs),
            seen=list(self.seen),
            params=OmegaConf.to_container(self.params) if OmegaConf.is_config(self.params) else self.params,
            is_absolute=os.path.isabs(hydra.runtime.output_dir),
            output_dir=hydra.runtime.output_dir,
            num=None if missing(config, "hydra.job.num") else hydra.job.num,
            has_id=not missing(config, "hydra.job.id"),
            job_name=hydra.job.name,
            override_dirname=hydra.job.override_dirname,
            choices=OmegaConf.to_container(hydra.runtime.choices)["db"],
            task=[task_function.__module__.replace("__main__", "my_app"), task_function.__qualname__, hasattr(task_function, "__wrapped__")],
            environment=os.environ.get("SET_BY_HYDRA"),
            is_configured=HydraConfig.get().runtime.output_dir == hydra.runtime.output_dir,
            readonly=OmegaConf.is_readonly(hydra),
            struct=OmegaConf.is_struct(config),
            type=str(OmegaConf.get_type(config, "hydra")),
        )

    def on_job_end(self, config, job_return, **kwargs):
        tell(
            config.hydra.runtime.output_dir,
            hook="on_job_end",
            callback=self.name,
            kwargs=sorted(kwargs),
            seen=self.seen,
            x=config.x,
            status=str(job_return.status),
            is_hydras=type(job_return).__mro__[-2].__name__ == "JobReturn",
            value=repr(job_return._return_value),
            cfg=OmegaConf.to_container(job_return.cfg, resolve=False),
            hydra_cfg=sorted(job_return.hydra_cfg.keys()),
            overrides=list(job_return.overrides),
            working_dir=job_return.working_dir,
            task_name=job_return.task_name,
            environment=os.environ.get("SET_BY_HYDRA"),
        )
'''

_APP = '''
"""An application that tells what it sees."""

import logging
import os
import random
import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.utils import get_original_cwd, to_absolute_path
from omegaconf import OmegaConf

from probe import tell

log = logging.getLogger(__name__)
OmegaConf.register_new_resolver("twice", lambda value: 2 * int(value))
OmegaConf.register_new_resolver("drawn", random.random, use_cache=True)


@hydra.main(version_base=VERSION, config_path="conf", config_name="config")
def main(cfg):
    log.info("the application runs")
    log.debug("a line that only verbose shows")
    hydra_cfg = HydraConfig.get()
    tell(
        hydra_cfg.runtime.output_dir,
        hook="application",
        cfg={**OmegaConf.to_container(cfg, resolve=True), "drawn": cfg.drawn == cfg.drawn},
        struct=OmegaConf.is_struct(cfg),
        db=str(getattr(OmegaConf.get_type(cfg, "db"), "__name__", None)),
        num=None if OmegaConf.is_missing(hydra_cfg.job, "num") else hydra_cfg.job.num,
        name=hydra_cfg.job.name,
        runtime_name=JobRuntime.instance().get("name"),
        mode=str(hydra_cfg.mode),
        sweep_subdir=None if hydra_cfg.mode.name == "RUN" else hydra_cfg.sweep.subdir,
        cwd=os.getcwd(),
        original_cwd=get_original_cwd(),
        absolute=to_absolute_path("data"),
        environment=os.environ.get("SET_BY_HYDRA"),
        main=main.__module__.replace("__main__", "my_app"),
        argv=os.path.basename(sys.argv[0]),
        verbose=logging.getLogger().level,
    )
    cfg.db.port += 1  # shows in the JobReturn
    if cfg.x == 13:
        raise ValueError("thirteen")
    return {"x": cfg.x, "stamp": cfg.stamp}


if __name__ == "__main__":
    main()
'''

#: version_base is put in by the test.
FILES = {
    "probe.py": _PROBE,
    "my_app.py": _APP,
    "schema.py": '''
        """A structured config in the ConfigStore."""

        from dataclasses import dataclass

        from hydra.core.config_store import ConfigStore


        @dataclass
        class MySQL:
            driver: str = "mysql"
            port: int = 3306


        ConfigStore.instance().store(group="db", name="base_mysql", node=MySQL)
        ''',
    "conf/config.yaml": """
        defaults:
          - db: mysql
          - _self_

        x: 1
        y: ${twice:${x}}
        drawn: ${drawn:}
        stamp: ${now:%Y-%m-%d %H:%M:%S.%f}
        where: ${hydra:runtime.output_dir}
        job_name: ${hydra:job.name}
        edited: no
        hydra:
          callbacks:
            first: {_target_: probe.Probe, name: first, params: {nested: [1, {deep: "${x}"}]}}
            second: {_target_: probe.Probe, name: second}
          job:
            env_set: {SET_BY_HYDRA: "value of ${hydra.job.name}"}
        """,
    "conf/db/mysql.yaml": """
        driver: mysql
        port: 3306
        """,
    "conf/db/sqlite.yaml": """
        driver: sqlite
        port: 0
        """,
}


def facts(folder: Path) -> list[dict[str, Any]]:
    """Return the recorded facts of a folder, in order.

    Values that may differ each time are removed, and folders are replaced by names.
    """
    lines = (folder / "facts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
