"""Applications with hydra-zen, in which `zen(task).hydra_main(...)` decorates the task only when the script starts
Hydra.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hydra import apps

_APP = {
    "conf/config.yaml": "lr: 0.5\nname: ???\nhydra: {sweep: {dir: sweep}, run: {dir: run}}\n",
    "app.py": """
        import json
        from dataclasses import dataclass
        from pathlib import Path

        from hydra.core.hydra_config import HydraConfig
        from hydra_zen import builds, store, zen


        @dataclass
        class Optimizer:
            lr: float
            momentum: float = 0.9


        def task(lr, name, optimizer: Optimizer, zen_cfg):
            told = [lr, name, optimizer.momentum, type(optimizer) is Optimizer, zen_cfg.optimizer.momentum]
            Path(HydraConfig.get().runtime.output_dir, "told.json").write_text(json.dumps(told))


        if __name__ == "__main__":
            store(builds(Optimizer, lr="${lr}", populate_full_signature=True), group="optimizer", name="sgd")
            store.add_to_hydra_store()
            zen(task).hydra_main(config_path="conf", config_name="config", version_base="1.3")
        """,
}
_OVERRIDES = ["+optimizer=sgd", "optimizer.momentum=0.5", "name=zen"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hydra", "plugin", "run", "multirun"])
def test_a_task_gets_its_config_however_it_is_started(tmp_path: Path, way: str) -> None:
    """It also gets what the script stores below its guard, and what `zen` makes of it."""
    app = apps.write(tmp_path, _APP)
    if way in ("run", "multirun"):
        apps.launcher(way, "app.py", *_OVERRIDES, cwd=app)
    else:
        apps.python("app.py", "-m", *(["hydra/launcher=remote"] if way == "plugin" else []), *_OVERRIDES, cwd=app)
    told = app / ("run" if way == "run" else "sweep/0") / "told.json"
    assert json.loads(told.read_text()) == [0.5, "zen", 0.5, True, 0.5]
