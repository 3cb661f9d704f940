"""Makes the page of a report: one HTML file with its style, its scripts and its data inside.

Rule: all text goes through Jinja's escaping, and data through JSON without `<`, so nothing that a host wrote is markup. A content security policy
names the hashes of our scripts and style: the page runs nothing else, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.display.text import error_line, seconds, shorten
from launcher.display.usage import usage_columns
from launcher.display.values import set_text, unread_lines
from launcher.report_page.facts import Homes, ReportFacts
from launcher.tables.cells import Cell, cell_text, is_number
from launcher.tables.table import Row, Table

__all__ = ["render"]

_FOLDER = Path(__file__).parent
#: ECharts, as its makers publish it (npm `echarts` 6.1.0, `dist/echarts.min.js`).
_CHARTS = "echarts-6.1.0.min.js"
#: What the first screen says of what ran.
_FIRST = ("command", "commit", "code", "environment")
#: How many overrides and values the table of jobs has as columns.
MAX_SETTINGS = 24
MAX_VALUES = 24


@dataclass(frozen=True)
class _Inline:
    """A script or a style in the page, with its hash for the policy."""

    text: Any
    hash: str


@dataclass(frozen=True)
class _Column:
    """A column of the table of jobs: its name, its role (`setting`, `value` or empty), its cells, and their texts if it has its own."""

    name: str
    role: str
    cells: list[Cell]
    texts: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        """Its class in the page."""
        return "number" if any(is_number(cell) for cell in self.cells) else ""


def render(facts: ReportFacts, folder: Path, *, full_paths: bool = False) -> bytes:
    """Make the page.

    Args:
        folder: where the page will be; links to files of the run are relative to it.
        full_paths: link files that are not below that folder, too, by a path that names the folders above.
    """
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def inline(name: str) -> _Inline:
        text = (_FOLDER / name).read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return _Inline(markupsafe.Markup(text), f"'sha256-{digest}'")  # noqa: S704 - files of ours

    table = facts.table
    varying = table.varying
    settings, values = varying[:MAX_SETTINGS], table.values[:MAX_VALUES]
    homes = Homes(are_kept=full_paths)
    columns = _columns(facts, settings, values, homes)
    hrefs = _hrefs(table.rows, folder, full_paths=full_paths)
    # A column is escaped as one text, which takes a tenth of the time of a hundred thousand cells.
    cells = zip(*(_escaped(_texts(column)) for column in columns[1:]), strict=True)
    tails = [markupsafe.Markup("<td>" + "<td>".join(one)) for one in cells]  # noqa: S704 - escaped above
    rows = [
        {"num": row.job.num, "state": row.job.state, "href": href, "cells": tail}
        for row, href, tail in zip(table.rows, hrefs, tails, strict=True)
    ]
    has_charts = any(column.role == "value" and column.kind for column in columns)
    repeated = [row.job for row in table.rows if len(row.job.attempts) > 1]
    page = environment.get_template("page.html").render(
        facts=facts,
        seconds=seconds,
        shorten=shorten,
        homes=homes,
        begin=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(facts.status.started)),
        best=[(homes(label), homes(value), num) for label, value, num in _best(facts)],
        first_facts=[(name, shorten(text, 300)) for name, text in facts.about if name in _FIRST],
        sections=_sections(facts, has_charts=has_charts, has_repeated=bool(repeated)),
        has_charts=has_charts,
        states=sorted({row.job.state for row in table.rows}),
        common=homes(_common(table, varying)),
        unread=unread_lines(table.unread),
        columns=[*columns, *([_Column("files", "", [])] if any(hrefs) else [])],
        rows=rows,
        has_files=any(hrefs),
        repeated=repeated,
        style=inline("page.css"),
        first=inline("first.js"),
        # Without charts there is no need for the library, which is most of a small page.
        scripts=[inline(name) for name in ((_CHARTS, "page.js") if has_charts or facts.spans else ("page.js",))],
        data=markupsafe.Markup(_script_json(_data(facts, columns, homes))),  # noqa: S704 - without `<`
    )
    return page.encode("utf-8", "backslashreplace")


def _columns(facts: ReportFacts, settings: Sequence[str], values: Sequence[str], homes: Homes) -> list[_Column]:
    rows = facts.table.rows

    def told(role: str, name: str, cells: Iterable[Cell]) -> _Column:
        return _Column(homes(name), role, [homes(cell) if type(cell) is str else cell for cell in cells])

    waits, returns = _phases(facts)
    columns = [
        _Column("job", "", [row.job.num for row in rows]),
        _Column("state", "", [row.job.state for row in rows]),
        _Column("host", "", [row.job.host for row in rows]),
        _Column("attempt", "", [row.job.attempt for row in rows]),
        _Column("waited", "", waits),
        _Column("work", "", [row.job.duration for row in rows]),
        _Column("collected in", "", returns),
        *(
            _Column(name, "", list(cells), tuple(texts))
            for name, cells, texts in usage_columns(row.job.resources_used for row in rows)
        ),
        *(told("setting", name, (row.settings.get(name) for row in rows)) for name in settings),
        *(told("value", name, (row.values.get(name) for row in rows)) for name in values),
    ]
    if facts.failures:
        columns.append(told("", "error", (shorten(error_line(row.job.error), 120) for row in rows)))
    return columns


def _phases(facts: ReportFacts) -> tuple[list[Cell], list[Cell]]:
    """For each row, how long its job waited for its last attempt, and how long it took to come back; in seconds."""
    last = {span.num: span for span in facts.spans}
    waits: list[Cell] = []
    returns: list[Cell] = []
    for row in facts.table.rows:
        span, queued = last.get(row.job.num), row.job.queued_at
        is_known = span is not None and span.attempt == row.job.attempt
        waits.append(
            round(max(0.0, span.start - (queued - facts.status.started)), 3)
            if span is not None and is_known and queued is not None
            else None
        )
        returns.append(
            round(max(0.0, span.collected - span.end), 3)
            if span is not None and is_known and span.collected is not None
            else None
        )
    return waits, returns


def _texts(column: _Column) -> list[str]:
    if column.texts is not None:
        return list(column.texts)
    if column.role:
        return [shorten(cell_text(cell), 80) if type(cell) is str else cell_text(cell) for cell in column.cells]
    if column.name in ("waited", "work", "collected in"):
        return [shorten(seconds(cell), 30) if isinstance(cell, (int, float)) else "" for cell in column.cells]
    return [str(cell) for cell in column.cells]


def _escaped(texts: list[str]) -> list[str]:
    """The texts as they stand in HTML. None has a NUL, because all of them are clean."""
    import markupsafe

    return str(markupsafe.escape("\0".join(texts))).split("\0") if texts else []


def _hrefs(rows: Sequence[Row], folder: Path, *, full_paths: bool) -> list[str]:
    """Links to the jobs' output folders; empty where there is none, or where the link would name folders above the page."""
    base = os.path.abspath(folder)
    hrefs = []
    for row in rows:
        place = os.path.abspath(row.job.output_dir) if row.job.output_dir else ""
        if place.startswith(f"{base}/"):
            relative = place[len(base) + 1 :]
        else:
            relative = os.path.relpath(place, base) if place else ""
        is_below = relative != ".." and not relative.startswith("../")
        is_there = bool(relative) and (is_below or full_paths) and os.path.isdir(row.job.output_dir)
        # The begin keeps a name with a colon from being a scheme.
        hrefs.append(f"./{urllib.parse.quote(os.fsencode(relative))}/" if is_there else "")
    return hrefs


def _best(facts: ReportFacts) -> list[tuple[str, str, int]]:
    """What the first screen says of the best jobs: a label, the number, and the job."""
    name = facts.sort.removeprefix("-").removeprefix("value.")
    if facts.sort and facts.ordered and facts.ordered[0].values.get(name) is not None:
        first = facts.ordered[0]
        return [(f"best {shorten(name, 40)}", cell_text(first.values[name]), first.job.num)]
    return [
        (f"{word} {shorten(one.name, 40)}", cell_text(row.values[one.name]), row.job.num)
        for one in facts.table.extremes(2)
        for word, row in (("least", one.lowest), ("greatest", one.highest))
    ]


def _sections(facts: ReportFacts, *, has_charts: bool, has_repeated: bool) -> list[tuple[str, str]]:
    there = [
        (bool(facts.failures), "failures", "failures"),
        (has_charts, "parameters", "parameters"),
        (bool(facts.spans), "timeline", "timeline"),
        (True, "jobs", "jobs"),
        (has_repeated, "attempts", "attempts"),
        (True, "hosts", "hosts"),
        (bool(facts.warnings), "warnings", "warnings"),
        (True, "about", "what ran"),
    ]
    return [(id_, name) for is_there, id_, name in there if is_there]


def _common(table: Table, varying: Sequence[str]) -> str:
    return (
        shorten(set_text(table.rows[0], [name for name in table.settings if name not in varying]), 1000)
        if table.rows
        else ""
    )


def _data(facts: ReportFacts, columns: Sequence[_Column], homes: Homes) -> dict[str, Any]:
    """What the page's script gets."""
    rows = facts.table.rows
    states = sorted({row.job.state for row in rows} | {span.state for span in facts.spans})
    state_of = {state: index for index, state in enumerate(states)}
    index_of = {row.job.num: index for index, row in enumerate(rows)}
    keys = sorted({(span.host, span.slot) for span in facts.spans} | _idle(facts))
    lanes = {key: index for index, key in enumerate(keys)}
    lanes_of: dict[str, list[int]] = {}
    for (host, _), index in lanes.items():
        lanes_of.setdefault(host, []).append(index)
    return {
        "num": [row.job.num for row in rows],
        "states": states,
        "state": [state_of[row.job.state] for row in rows],
        "columns": [{"name": one.name, "role": one.role, "cells": [_number(cell) for cell in one.cells]} for one in columns],
        "lanes": [f"{host} · {slot}" for host, slot in keys],
        "spans": [
            [
                lanes[span.host, span.slot], round(span.start, 3), round(span.end, 3),
                round(max(span.end, span.collected or 0.0), 3), index_of[span.num], state_of[span.state], span.attempt,
            ]
            for span in facts.spans
        ],
        "gaps": [
            [min(lanes_of[host.name]), max(lanes_of[host.name]), round(since, 3), round(until, 3), homes(why)]
            for host in facts.hosts
            if host.name in lanes_of
            for since, until, why in host.gaps
        ],
        "span": round(facts.span, 3),
        "target": homes(facts.sort.removeprefix("-").removeprefix("value.")),
        "greatest": facts.sort.startswith("-"),
    }  # fmt: skip


def _idle(facts: ReportFacts) -> set[tuple[str, int]]:
    """The slots of hosts that were ready; those that never worked have a lane, too."""
    return {(host.name, slot) for host in facts.hosts for slot in range(min(host.slots, 512))}


def _number(cell: Cell) -> Cell:
    """A cell for the script: what JSON cannot write is missing, and a number has the digits that a chart shows."""
    if type(cell) is float:
        return float(f"{cell:.9g}") if math.isfinite(cell) else None
    return float(cell) if type(cell) is int and abs(cell) > 1 << 53 else cell


def _script_json(data: dict[str, Any]) -> str:
    """The data as JSON in ASCII that stays within a script element: without `<`, `>` and `&`."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
