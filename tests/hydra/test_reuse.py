"""Jobs of a Hydra app that share processes have their own config, logging and output, as in Hydra."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hydra import apps

_APP = """
    import json
    import logging
    import os

    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    log = logging.getLogger(__name__)


    @hydra.main(version_base=None, config_path="conf", config_name="config")
    def main(cfg):
        if cfg.registers:
            OmegaConf.register_new_resolver("of_a_job", lambda: 1)
        log.info("job %s", cfg.x)
        told = [os.getpid(), HydraConfig.get().job.num, os.path.basename(os.getcwd()), os.environ.get("SET")]
        with open("told.json", "w") as file:
            json.dump(told, file)


    if __name__ == "__main__":
        main()
    """
_CONF = "x: 0\nregisters: false\nhydra: {sweep: {dir: sweep}, job: {chdir: true, env_set: {SET: 'x${x}'}}}\n"


@pytest.mark.slow
@pytest.mark.parametrize("registers", [False, True])
def test_jobs_of_an_app_share_a_process_and_nothing_else(tmp_path: Path, registers: bool) -> None:
    """A job that registers a resolver ends its process, so that the next one can register it, too."""
    app = apps.write(tmp_path, {"my_app.py": _APP, "conf/config.yaml": _CONF})
    words = ["x=range(0,4)", f"registers={registers}", "--host", "local/1", "--isolation", "reuse"]
    apps.launcher("multirun", "my_app.py", *words, cwd=app)
    told = [json.loads((app / "sweep" / str(num) / "told.json").read_text()) for num in range(4)]
    assert [one[1:] for one in told] == [[num, str(num), f"x{num}"] for num in range(4)]
    assert len({one[0] for one in told}) == (4 if registers else 1)
    for num in range(4):
        log = (app / "sweep" / str(num) / "my_app.log").read_text()
        assert log.count("\n") == 1
        assert log.endswith(f"job {num}\n")
