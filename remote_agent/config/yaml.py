"""Writes configs as YAML, exactly as `OmegaConf.to_yaml` does, at a fraction of its cost.

Rule: if the result might differ, `OmegaConf.to_yaml` writes it. The tests compare both. Nested dicts and lists of short
plain scalars are certain, which covers nearly every config. `OmegaConf.to_yaml` alone would take 3.5 ms more CPU time
per job (7.9 for a Hydra app), of 7.4 in all processes (docs/decisions.md).
"""

import re
from functools import lru_cache
from typing import Any, List, Optional

from remote_agent.config.nodes import is_config, plain_of

__all__ = ["config_yaml", "plain_yaml"]

#: PyYAML may fold lines that are longer than this many columns.
_WIDTH = 76
_PLAIN = re.compile(r"[A-Za-z_/$][\w/$.()=+@%{}~*&!?,\[\];-]*(?:[ :][\w/$.()=+@%{}~*&!?,\[\];-]+)*\Z", re.ASCII)
#: Words that YAML or OmegaConf's dumper does not read as text.
_SPECIAL = frozenset(
    ["y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan", "inf", "infinity", "none", "_", ""]
)
#: Texts that every job has, and that begin with a digit: its number, which is quoted, and its id, which is not. Without these two lines,
#: PyYAML writes both in each job, which takes an eighth of the CPU time of a job in a worker.
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)\Z", re.ASCII)
_JOB_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}[#_][0-9]+\Z", re.ASCII)
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+\Z")
_MOST_CACHED = 4096


class _Uncertain(Exception):
    """It is not certain how PyYAML would write this."""


@lru_cache(maxsize=_MOST_CACHED)
def _quoted(text: str) -> str:
    """Return a short one-line text as OmegaConf's dumper writes it as a scalar."""
    import yaml
    from omegaconf._utils import get_omega_conf_dumper

    if not text.isprintable() or not text.isascii():
        raise _Uncertain
    written: str = yaml.dump(text, Dumper=get_omega_conf_dumper(), allow_unicode=True, width=10**6)
    written = written[:-5] if written.endswith("\n...\n") else written[:-1]
    if "\n" in written:
        raise _Uncertain
    return written


def _scalar(value: Any, column: int) -> str:
    kind = type(value)
    if kind is str:
        if len(value) + column > _WIDTH:
            if " " in value or _PLAIN.match(value) is None:
                raise _Uncertain
            return str(value)
        if _PLAIN.match(value) is not None and value.lower() not in _SPECIAL:
            return str(value)
        if _NUMBER.match(value) is not None:
            return "'{}'".format(value)
        if _JOB_ID.match(value) is not None:
            return str(value)
        return _quoted(value) if value else "''"
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind is int:
        return str(value)
    if kind is float:
        text = repr(value)
        if _FLOAT.match(text) is not None:
            return text
    raise _Uncertain


def _key(key: Any, column: int) -> str:
    # PyYAML writes keys that are long or have several lines in another way ("? key").
    if type(key) not in (str, int, bool) or (type(key) is str and len(key) > 60):
        raise _Uncertain
    return _scalar(key, column)


@lru_cache(maxsize=_MOST_CACHED)
def _entry(key: str, value: str, indent: int) -> str:
    """Return the lines of `key: value` below `indent // 2` mappings, as OmegaConf's dumper writes them."""
    import yaml
    from omegaconf._utils import get_omega_conf_dumper

    nested: Any = {key: value}
    for _ in range(indent // 2):
        nested = {"k": nested}
    written: str = yaml.dump(nested, Dumper=get_omega_conf_dumper(), default_flow_style=False, allow_unicode=True)
    lines = written.split("\n")[indent // 2 : -1]
    return "\n".join(lines)


def _emit(value: Any, indent: int, lead: str, lines: List[str], *, is_in_list: bool = False) -> None:
    """Append the lines of a non-empty dict or list. `lead` goes before the first of them."""
    pad = " " * indent
    if type(value) is dict:
        for key, item in value.items():
            start = lead + _key(key, indent) + ":"
            lead = pad
            if type(item) is dict and item:
                lines.append(start)
                _emit(item, indent + 2, pad + "  ", lines, is_in_list=is_in_list)
            elif type(item) is list and item:
                lines.append(start)
                _emit(item, indent, pad, lines, is_in_list=True)
            else:
                try:
                    lines.append(start + " " + _leaf(item, len(start) + 1))
                except _Uncertain:
                    if is_in_list or type(item) is not str or type(key) is not str:
                        raise
                    lines.append(_entry(key, item, indent))
        return
    for item in value:
        start = lead + "-"
        lead = pad
        if type(item) in (dict, list) and item:
            _emit(item, indent + 2, start + " ", lines, is_in_list=True)
        else:
            lines.append(start + " " + _leaf(item, len(start) + 1))


def _leaf(value: Any, column: int) -> str:
    if type(value) is dict:
        return "{}"
    if type(value) is list:
        return "[]"
    return _scalar(value, column)


def plain_yaml(value: Any) -> Optional[str]:
    """Return the YAML of nested dicts and lists; None if PyYAML might write it differently."""
    if type(value) is dict or type(value) is list:
        if not value:
            return "{}\n" if type(value) is dict else "[]\n"
        lines: List[str] = []
        try:
            _emit(value, 0, "", lines)
        except (_Uncertain, RecursionError):
            return None
        lines.append("")
        return "\n".join(lines)
    return None


def config_yaml(config: Any) -> str:
    """Return the YAML of a config, as `OmegaConf.to_yaml` writes it.

    If YAML cannot represent it (it has a user's object), the text is a comment that says so. Nothing is raised.
    """
    if not is_config(config):
        return "# a {}, which YAML cannot represent\n".format(type(config).__name__)
    try:
        text = plain_yaml(plain_of(config))
        if text is not None:
            return text
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(config)
    except Exception as error:  # noqa: BLE001 - a user's object may raise anything
        return "# YAML cannot represent this config: {}: {}\n".format(
            type(error).__name__, str(error).replace("\n", "\n# ")
        )
