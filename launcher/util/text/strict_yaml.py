"""Reads YAML that a person writes, and refuses what it would silently read as something else.

Rule: a key that is given twice, and a number that is not written as it is read (022 is 18, 1:30 is 90), are errors. Aliases that stand for
more than anybody can mean are refused before anything is built of them.
"""

from __future__ import annotations

from typing import Any

from launcher.util.text.quoting import shown

__all__ = ["read"]

#: Items, with aliases written out.
_MAX_ITEMS = 1_000_000


def read(text: str) -> Any:
    """Return what YAML holds, as plain data.

    Raises:
        ValueError: it is not YAML, or it is refused. The message is one line.
    """
    import yaml

    loader = None
    try:
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > _MAX_ITEMS:
            raise ValueError(f"expanded with its aliases, it has more than {_MAX_ITEMS} items")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:500]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that is given twice; YAML would silently keep the last."""

    def mapping(loader: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key is not a name")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: {shown(key)} is given twice")
            seen.add(key)
        return dict(loader.construct_pairs(node, deep=True))

    def number(loader: Any, node: Any) -> Any:
        """A number as it is written; what YAML reads as another (022 is 18, 1:30 is 90, 1.10 is 1.1) is refused."""
        line = node.start_mark.line + 1
        try:
            value = loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)
            text = str(value)
        except (ValueError, OverflowError):
            raise yaml.YAMLError(f"line {line}: {node.value[:60]}... is not a number that can be used") from None
        if text != node.value:
            # With colons it is a time, or a name, and hardly a number with the base 60.
            how = "put it in quotes" if ":" in node.value else "write that, or put it in quotes"
            raise yaml.YAMLError(f"line {line}: YAML reads {node.value[:60]} as the number {text[:60]}; {how}")
        return value

    Loader.add_constructor("tag:yaml.org,2002:int", number)
    Loader.add_constructor("tag:yaml.org,2002:float", number)
    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader


def _written_out(node: Any, sizes: dict[int, int]) -> int:
    """How many nodes there are, each alias counted as what it stands for; one that holds itself has no end."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    sizes[id(node)] = _MAX_ITEMS + 1
    size = 1
    if isinstance(node.value, list):
        for item in node.value:
            size += sum(_written_out(one, sizes) for one in (item if isinstance(item, tuple) else (item,)))
    sizes[id(node)] = size
    return size
