"""A Hydra app. A negative `n` fails; a `gate` is a file that is waited for."""

from __future__ import annotations

import logging
from typing import Any

import hydra
from telling import tell, wait_for

log = logging.getLogger(__name__)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: Any) -> dict[str, int]:
    """The square of `n`."""
    tell(f"ran {cfg.n}")
    print(f"job with n={cfg.n}")
    wait_for(f"{cfg.gate}.{cfg.n}" if cfg.gate else "")
    if cfg.n < 0:
        raise ValueError(f"n={cfg.n} is negative")
    return {"square": cfg.n**2}


if __name__ == "__main__":
    main()
