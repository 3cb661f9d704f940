"""What a task gets, in a form in which two jobs can be compared, also jobs of different runs.

Rule: what differs by itself does not count. That is a job's number and id, its folders, and the time. A config has them as interpolations
(`${hydra:job.num}`, `${now:...}`), and an interpolation counts as its text. What it refers to in the same config counts by itself. In doubt
two configs differ: a job too many runs, and no result is taken for another one's.
"""

from __future__ import annotations

import enum
import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.util.equality import is_equal

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["Comparable", "comparable"]

#: Keys of `hydra.job` that change what a task finds in its process.
_OF_JOB = ("chdir", "env_copy", "env_set")


class Comparable(NamedTuple):
    """A config to be compared. `objects` are the values in it that are no plain data, in their order."""

    digest: str
    objects: tuple[Any, ...]

    def is_same(self, other: Comparable) -> bool:
        """Whether a task gets the same with both."""
        return self.digest == other.digest and all(map(_is_same_object, self.objects, other.objects))


def comparable(config: Any, hydra_config: DictConfig | None) -> Comparable:
    """Return what can be compared of a job's config, and of its `hydra` node.

    Args:
        config, hydra_config: as `RunSetup.own_config` returns them.
    """
    objects: list[Any] = []
    job = _raw(hydra_config.hydra.job) if hydra_config is not None else {}
    plain = [_walked(_raw(config), objects), [_walked(job.get(name), objects) for name in _OF_JOB]]
    return Comparable(hashlib.sha256(json.dumps(plain).encode()).hexdigest(), tuple(objects))


def _raw(config: Any) -> Any:
    """Return a config with its interpolations as text, and with `???` where a value is missing."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config


def _walked(value: Any, objects: list[Any]) -> Any:
    """Return plain data that is equal for equal values. The order of keys makes no difference."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, PurePath)):
        return [_type_name(value), repr(value)]
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: (_type_name(pair[0]), repr(pair[0])))
        return {"mapping": [[_type_name(key), repr(key), _walked(one, objects)] for key, one in pairs]}
    if isinstance(value, (list, tuple)):
        return {"list": [_walked(one, objects) for one in value]}
    objects.append(value)
    return {"object": _type_name(value)}


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_same_object(one: Any, other: Any) -> bool:
    try:
        if pickle.dumps(one) == pickle.dumps(other):
            return True
    except Exception:  # noqa: BLE001, S110 - a user's object may raise anything; then its own word counts
        pass
    return is_equal(one, other) is True
