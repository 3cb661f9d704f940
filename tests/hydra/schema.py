"""Writes the schema of `hydra/launcher=remote` from the fields of LaunchConf: `python -m tests.hydra.schema`.

Rule: the schema is a separate file, and not made at import. Every Hydra app on the machine imports it, even an app with
its own package `launcher`, and even under Pythons that are too old for ours.
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

from launcher.options import LaunchConf, Option, option_fields

FILE = Path(__file__).parents[2] / "hydra_plugins" / "hydra_remote_launcher" / "_conf.py"
_BEGIN = "    # The fields of LaunchConf; `python -m tests.hydra.schema` writes them.\n"
_END = "    # The end of what is written.\n"
#: Types that Hydra can hold as they are; where a field has another one, Hydra takes anything, and LaunchConf checks it.
_TYPES = {
    "bool": "bool",
    "int | None": "int | None",
    "str": "str",
    "str | None": "str | None",
    "tuple[str, ...]": "list[str]",
    "Mapping[str, str]": "dict[str, str]",
}
_EMPTY = {(): "list"}
_WIDTH = 120


def written() -> str:
    """Return the whole file, with the present fields of LaunchConf."""
    text = FILE.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    options = option_fields()
    fields = "".join(_field(one, options[one.name]) for one in dataclasses.fields(LaunchConf))
    return before + _BEGIN + fields + _END + after


def _field(field: dataclasses.Field[object], option: Option) -> str:
    comment = textwrap.wrap(option.help, _WIDTH, initial_indent="    #: ", subsequent_indent="    #: ")
    made = "dict" if field.default is dataclasses.MISSING else _EMPTY.get(field.default)  # type: ignore[call-overload]
    default = f"field(default_factory={made})" if made else _literal(field.default)
    type_ = option.schema or _TYPES.get(str(field.type), "Any")
    return "\n".join([*comment, f"    {field.name}: {type_} = {default}\n"])


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    FILE.write_text(written())
