"""The fields of every message: which must be there, what they may be, and what a missing one means.

Rule: `ABSENT` has the values of fields that an earlier version or another program left out. `remote_agent.protocol.wire` fills them in, so that
a reader finds every field.
"""

from typing import Any, Dict, Tuple, Union, get_args, get_origin

from remote_agent.protocol.messages import Message

__all__ = ["ABSENT", "SCHEMA"]

#: message -> field -> its value if it is missing; `list` and `dict` mean an empty one.
ABSENT: Dict[str, Dict[str, Any]] = {
    "hello": {
        "slots": None,
        "gpus": None,
        "needs": None,
        "size": None,
        "lease": None,
        "live": False,
        "batch": None,
        "sync": None,
        "holes": False,
    },
    "blob": {"scope": "cache"},
    "ask_pythons": {"python": None},
    "environment": {"budget": None, "addresses": dict, "named": False, "fetch_python": False},
    "withheld": {"environment": False},
    "environment_state": {"done": 0, "total": 0, "fetched": 0},
    "job": {"payload_blob": None, "last": False},
    "cancel": {"kill": False, "kind": "cancelled", "why": ""},
    "finish": {"keep": False, "interrupted": False},
    "look": {"stdout": 0, "stderr": 0},
    "remove": {"force": False},
    "welcome": {
        "gpus": list,
        "notes": list,
        "logout": list,
        "takes_back": False,
        "stops": False,
        "too_small": "",
        "room": None,
        "more": False,
    },
    "missing": {"manifest": None, "more": False},
    "zygote": {"error": None, "python": "", "isolation": "", "why": "", "notes": list, "imported": None},
    "dropped": {"asked": False, "again": False},
    "final": {"parts": dict, "again": False},
    "chunk": {"path": "", "mode": 0, "mtime": None, "hole": 0, "parts": None},
    "tree": {"folders": list, "links": list},
    "files_end": {"sizes": dict, "cut": None, "noted": list, "unmatched": list, "left": None},
    "surveyed": {"more": False},
    "environments_listed": {"more": False},
    "list_gpus": {"gpus": None},
    "gpus_listed": {"more": False},
    "looked": {"more": False},
    "ready": {"why": "", "notes": list, "imported": None},
    "fork": {"leases": 0},
    "epilogue": {"leases": 0},
    "exited": {"used": None},
    "state": {"file": None, "error": None},
    "outcome": {"parts": dict, "spent": 0.0},
    "done": {"parts": dict, "spent": 0.0},
}


def _types(kind: Any) -> Tuple[type, ...]:
    """Return the types that a value may have. The content of a list or an object is checked by its reader."""
    origin = get_origin(kind)
    if origin is Union:
        return tuple(one for inner in get_args(kind) for one in _types(inner))
    return (int, float) if kind is float else (origin or kind,)


def _schema(cls: type) -> Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]]:
    kinds = dict(cls.__annotations__)
    return {
        name: {field: (_types(kind), field not in ABSENT.get(name, ())) for field, kind in kinds.items()}
        for name in get_args(kinds.pop("t"))
    }


#: message -> field -> (types, required). Other fields are accepted, because a later version may send more.
SCHEMA: Dict[str, Dict[str, Tuple[Tuple[type, ...], bool]]] = {}
for _one in get_args(Message):
    SCHEMA.update(_schema(_one))
