"""A Hydra app whose function hydra-zen wraps, with a structured config from Hydra's store."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra_zen import make_config, zen
from telling import tell


def train(n: int) -> Any:
    """The square of `n`."""
    tell(f"ran {n}")
    print(f"job with n={n}")
    if n < 0:
        raise ValueError(f"n={n} is negative")
    return {"square": n**2}


ConfigStore.instance().store("config", make_config(n=0, hydra={"callbacks": {"told": {"_target_": "telling.Telling"}}}))

if __name__ == "__main__":
    zen(train).hydra_main(config_path=None, config_name="config", version_base=None)
