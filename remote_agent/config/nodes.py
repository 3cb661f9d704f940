"""Makes, copies and flattens OmegaConf's trees node by node, without the slow parts of omegaconf.

Rule: the result is the same as omegaconf's, to the last attribute. `make_config` is checked on a sample before it is
used, and leaves data that is not plain to `OmegaConf.create`. `clone`, `plain_of` and `opened` have a plain way, too,
and the tests compare both.

Each saves this much CPU time per job, in ms, of 7.4 in all processes (docs/decisions.md): `make_config` 7.1; `clone`
9.7, of a Hydra app; `plain_of` 0.2, of a Hydra app 3.5; `opened` 1.4, on the controller.
"""
# ruff: noqa: SLF001  (omegaconf's private attributes are what this file is about)

import copy
import pickle
import re
from collections import defaultdict
from enum import Enum
from pathlib import Path
from typing import Any, Dict, Optional, Union

__all__ = [
    "attach",
    "clone",
    "config_of",
    "is_config",
    "literal",
    "make_config",
    "opened",
    "plain_of",
    "put_text",
    "snapshot",
]

_SAMPLE = {"a": {"b": [1, {"c": None}], "d": {}}, "e": "text", "f": [], "g": True, "h": 0.5}
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_LEAVES = (str, int, float, bool, type(None))
_UNCHANGING = (str, int, float, bool, type(None), bytes, complex)


class _NotPlain(Exception):
    """The value is not plain data, so omegaconf has to handle it."""


class _Maker:
    """Makes the same nodes of plain data as `OmegaConf.create`."""

    def __init__(self) -> None:
        from omegaconf import DictConfig, ListConfig, OmegaConf
        from omegaconf.base import ContainerMetadata, Metadata
        from omegaconf.nodes import AnyNode

        self._dict, self._list, self._leaf = DictConfig, ListConfig, AnyNode
        self._container_metadata, self._metadata = ContainerMetadata, Metadata
        sample = OmegaConf.create({"d": {}, "l": [], "s": 1})
        content = sample.__dict__["_content"]
        self._of_dict = dict(content["d"]._metadata.__dict__)
        self._of_list = dict(content["l"]._metadata.__dict__)
        self._of_leaf = dict(content["s"]._metadata.__dict__)

    def _described(self, cls: Any, template: Dict[str, Any], key: Any) -> Any:
        metadata = object.__new__(cls)
        fields = metadata.__dict__
        fields.update(template)
        fields["key"] = key
        fields["flags"] = {}
        fields["resolver_cache"] = defaultdict(dict)
        return metadata

    def node(self, value: Any, parent: Any, key: Any) -> Any:
        """Make the node of a value, and those below it.

        Raises:
            _NotPlain: omegaconf has to handle the value.
        """
        kind = type(value)
        if kind in _LEAVES:
            if kind is str and "${" in value:
                raise _NotPlain
            leaf = object.__new__(self._leaf)
            leaf.__dict__.update(
                _metadata=self._described(self._metadata, self._of_leaf, key),
                _parent=parent,
                _flags_cache=None,
                _val=value,
            )
            return leaf
        node: Any
        content: Any
        if kind is dict:
            node = object.__new__(self._dict)
            content = {}
            node.__dict__.update(
                _metadata=self._described(self._container_metadata, self._of_dict, key),
                _parent=parent,
                _flags_cache=None,
                _content=content,
            )
            for name, item in value.items():
                if type(name) is not str:
                    raise _NotPlain
                content[name] = self.node(item, node, name)
            return node
        if kind is list:
            node = object.__new__(self._list)
            content = []
            node.__dict__.update(
                _metadata=self._described(self._container_metadata, self._of_list, key),
                _parent=parent,
                _flags_cache=None,
                _content=content,
            )
            for index, item in enumerate(value):
                content.append(self.node(item, node, index))
            return node
        raise _NotPlain

    def is_right(self) -> bool:
        """Whether it makes the same of a sample as omegaconf."""
        from omegaconf import OmegaConf

        return pickle.dumps(self.node(_SAMPLE, None, None), 4) == pickle.dumps(OmegaConf.create(_SAMPLE), 4)


class _Proven:
    """The maker of this process after its check; False if the check failed, None before the first use."""

    maker: Union[bool, _Maker, None] = None

    @classmethod
    def get(cls) -> Union[bool, _Maker]:
        """Return the maker, or False."""
        if cls.maker is None:
            try:
                maker = _Maker()
                cls.maker = maker if maker.is_right() else False
            except (AttributeError, KeyError, TypeError):
                cls.maker = False  # this omegaconf is built in another way
        return cls.maker


def make_config(value: Any) -> Any:
    """`OmegaConf.create(value, flags={"allow_objects": True})`."""
    maker = _Proven.get()
    if isinstance(maker, _Maker) and type(value) in (dict, list):
        try:
            node = maker.node(value, None, None)
        except (_NotPlain, RecursionError):
            pass  # omegaconf accepts or refuses it
        else:
            node._metadata.flags["allow_objects"] = True
            return node
    from omegaconf import OmegaConf

    return OmegaConf.create(value, flags={"allow_objects": True})


def is_config(value: Any) -> bool:
    """`OmegaConf.is_config(value)` without an import of omegaconf, which takes 40 ms before a login and may not be
    needed.
    """
    return type(value).__name__ in ("DictConfig", "ListConfig") and type(value).__module__.startswith("omegaconf.")


def attach(config: Any, key: str, node: Any) -> None:
    """Make `node` a child of a DictConfig. Unlike an assignment, this does not copy it."""
    config.__dict__["_content"][key] = node
    node._set_parent(config)
    node._metadata.key = key


def literal(text: str) -> str:
    """Escape a text, so that OmegaConf returns exactly this text and finds no interpolation in it."""
    return _INTERPOLATION.sub(lambda match: match.group(1) * 2 + "\\${", text) if "${" in text else text


def put_text(config: Any, path: str, text: str) -> None:
    """Set a text without interpolations, as `OmegaConf.update(config, path, text)` does."""
    from omegaconf import OmegaConf

    OmegaConf.update(config, path, literal(text))


def config_of(key: str, node: Any) -> Any:
    """Return a DictConfig with only this node in it."""
    shell = make_config({})
    del shell._metadata.flags["allow_objects"]
    attach(shell, key, node)
    return shell


def clone(config: Any, without: Optional[str] = None) -> Any:
    """`copy.deepcopy(config)` of a DictConfig without a parent, optionally without one top-level key."""
    content = config.__dict__["_content"]
    left_out = content.pop(without, None) if without is not None else None
    try:
        return _cloned(config, None)
    except _NotPlain:
        return copy.deepcopy(config)
    finally:
        if left_out is not None:
            content[without] = left_out


def opened(config: Any, hydra: Any = None) -> Any:
    """Return a config that accepts any edit and any object, and has the `hydra` node of the config `hydra`, if given.

    Neither argument may be used afterwards: if possible, they are returned, or become part of what is returned.
    """
    from omegaconf import DictConfig, OmegaConf

    if isinstance(config, DictConfig) and config._get_parent() is None and type(config.__dict__["_content"]) is dict:
        # The same result as below, in a tenth of the time.
        made: Any = config
    else:
        made = OmegaConf.create(config if config is not None else {}, flags={"allow_objects": True})
    made._set_flag(["allow_objects", "struct", "readonly"], [True, False, False])
    if hydra is not None:
        attach(made, "hydra", hydra._get_node("hydra"))
    return made


def _cloned(node: Any, parent: Any) -> Any:
    own = node.__dict__
    made = object.__new__(type(node))
    fields = made.__dict__
    fields.update(own)
    fields["_parent"] = parent
    fields["_flags_cache"] = None
    described = own["_metadata"]
    metadata = object.__new__(type(described))
    metadata.__dict__.update(described.__dict__)
    if described.flags:
        metadata.flags = dict(described.flags)
    else:
        metadata.flags = {}
    metadata.resolver_cache = copy.deepcopy(described.resolver_cache) if described.resolver_cache else defaultdict(dict)
    fields["_metadata"] = metadata
    if "_content" not in own:
        value = own["_val"]
        if type(value) not in _UNCHANGING and not isinstance(value, (Enum, Path)):
            fields["_val"] = copy.deepcopy(value)
        return made
    content = own["_content"]
    if type(content) is dict:
        fields["_content"] = {key: _cloned(item, made) for key, item in content.items()}
    elif type(content) is list:
        fields["_content"] = [_cloned(item, made) for item in content]
    elif content is not None and type(content) is not str:
        raise _NotPlain
    return made


def snapshot(config: Any) -> Optional[bytes]:
    """Return bytes that change if the config is edited; None if it cannot be pickled."""
    try:
        return pickle.dumps(config, 4)
    except Exception:  # noqa: BLE001 - a user's object may raise anything when it is pickled
        return None


def plain_of(config: Any) -> Any:
    """`OmegaConf.to_container(config, resolve=False, enum_to_str=True)`."""
    try:
        return _plain(config)
    except (_NotPlain, AttributeError, KeyError):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(config, resolve=False, enum_to_str=True)


_SIMPLE_NODES = frozenset({"AnyNode", "BooleanNode", "EnumNode", "FloatNode", "IntegerNode", "StringNode"})


def _plain(node: Any) -> Any:
    own = node.__dict__
    kind = type(node).__name__
    if kind in _SIMPLE_NODES:
        value = own["_val"]
        # An EnumNode may also have a stand-in, for an enum that this host does not have.
        is_enum = isinstance(value, Enum) or (kind == "EnumNode" and not isinstance(value, (str, type(None))))
        return value.name if is_enum else value
    content = own["_content"]
    if kind == "DictConfig":
        if type(content) is not dict:
            return content
        return {key.name if isinstance(key, Enum) else key: _plain(item) for key, item in content.items()}
    if kind == "ListConfig":
        return [_plain(item) for item in content] if type(content) is list else content
    raise _NotPlain
