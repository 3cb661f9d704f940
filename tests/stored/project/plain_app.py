"""A plain function for the command line."""

from __future__ import annotations

from typing import Any

from telling import tell, wait_for


def main(cfg: Any) -> dict[str, Any]:
    """The square of `n`."""
    tell(f"ran {cfg.n}")
    print(f"job with n={cfg.n}")
    wait_for(f"{cfg.gate}.{cfg.n}" if cfg.get("gate") else "")
    if cfg.n < 0:
        raise ValueError(f"n={cfg.n} is negative")
    return {"square": cfg.n**2}
