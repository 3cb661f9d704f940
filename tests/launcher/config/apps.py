"""A Hydra app with configs of its own, as text."""

from __future__ import annotations

import itertools

APP = """
    from dataclasses import dataclass, field
    import hydra
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    @dataclass
    class Net:
        depth: int = 2

    ConfigStore.instance().store(group="net", name="stored_{name}", node=Net)
    OmegaConf.register_new_resolver("twice_{name}", lambda x: 2 * x, replace=True)

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def run(cfg):
        return cfg.lr

    if __name__ == "__main__":
        run()
"""

FILES = {
    "conf/config.yaml": """
        defaults: [db: mysql, net: stored_{name}, _self_]
        lr: 0.1
        double: ${{twice_{name}:${{lr}}}}
        when: ${{now:%Y%m%d%H%M%S%f}}
    """,
    "conf/db/mysql.yaml": "name: mysql\nport: 3306\n",
    "conf/db/pg.yaml": "name: pg\nport: 5432\n",
    "conf/db/broken.yaml": "name: ${{nothing.there}}\n",
    "conf/db/unparsable.yaml": "a: [\n",
    "conf/required.yaml": "defaults:\n  - db: ???\n  - _self_\nurl: ${{db.name}}\n",
    "conf/other.yaml": "lr: 5\nextra: 1\n",
    "conf/multi.yaml": "hydra: {{mode: MULTIRUN, sweeper: {{params: {{lr: '1,2'}}}}}}\nlr: 0\n",
    "conf/unregistered.yaml": "lr: ${{no_such_resolver:1}}\n",
    "conf/hydra/callbacks/cb.yaml": "# @package _global_\nhydra: {{callbacks: {{one: {{_target_: a.B, x: '${{lr}}'}}, none: null}}}}\n",
    "more/db/third.yaml": "name: third\nport: 3\n",
    "more/db/mysql.yaml": "name: mine\nport: 1\n",
    "more/only_here.yaml": "lr: 9\n",
    "found/pkgconf_{name}/__init__.py": "",
    "found/pkgconf_{name}/db/packaged.yaml": "name: packaged\nport: 4\n",
}

numbers = itertools.count()
