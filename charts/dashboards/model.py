"""A dashboard of Grafana as typed data, laid out and written as the JSON that Grafana takes.

Grafana's own JSON is hundreds of lines a panel, most of them defaults, and its grid is counted by hand. Here
a panel says what is its own: the question that it answers, the queries, the unit, how a value is judged.
Every panel has a description, for whoever looks at it did not write it, and a text that stands where there
is no value. The data source is a variable throughout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 39
"""Of Grafana 10.4 and 11; later ones bring it up to date when they load it."""
GRAFANA = "10.4.0"
COLUMNS = 24
"""Of Grafana's grid."""
SPANNED_MILLISECONDS = 300_000
"""A line goes on over a gap so long: between rounds there is none to measure."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]


@dataclass(frozen=True)
class Query:
    """One expression of PromQL."""

    expr: str
    legend: str = ""
    """Name of a line, such as `{{worker}}`."""
    once: bool = False
    """Asked for the end of the time range only, not for each moment of it."""


@dataclass(frozen=True)
class Panel:
    """One picture or table, and what it is for."""

    kind: Kind
    title: str
    description: str
    unit: str
    """As Grafana names units: percentunit, s, bytes, short, none ..."""
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    thresholds: tuple[tuple[float, str], ...] = ()
    """From which value on which colour; below the first it is green, or what `base` says."""
    base: str = "green"
    no_value: str = "no data in this time range"
    """Shown where there is no value, and says why."""
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    stacked: bool = False
    steps: bool = False
    """Values hold until the next one: drawn as stairs."""
    mappings: tuple[tuple[str, str, str], ...] = ()
    """Value, word, colour."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Name of a line and its fixed colour."""
    columns: tuple[Column, ...] = ()
    """Of a table, in order; what is not named is hidden."""
    matrix: tuple[str, str, str] | None = None
    """Of a table: the labels that make its rows and columns, and what the corner says."""
    sort: tuple[str, bool] | None = None
    """Of a table: column, and whether the highest comes first."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    """Label, or `Value #A` for the first query."""
    title: str
    unit: str = ""
    thresholds: tuple[tuple[float, str], ...] = ()
    base: str = "green"
    link: str = ""
    """Where a click leads."""


@dataclass(frozen=True)
class Section:
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What a reader chooses at the top."""

    name: str
    label: str
    query: str
    every: bool = False
    """Several values, or all of them."""


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]
    since: str = "now-1h"
    links: tuple[tuple[str, str], ...] = ()
    """Title and path of other pages."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for section in self.sections for panel in section.panels)


def render(dashboard: Dashboard) -> str:
    """Return the dashboard as Grafana's JSON, and always the same text."""
    return json.dumps(as_json(dashboard), indent=1, ensure_ascii=False) + "\n"


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON model."""
    return {
        "id": None,
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["engram"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": dashboard.since, "to": "now"},
        "timepicker": {},
        "refresh": "30s",
        "links": [_link(title, path) for title, path in dashboard.links],
        "annotations": {"list": []},
        "templating": {"list": [_SOURCES, *(_variable(item) for item in dashboard.variables)]},
        "panels": list(_placed(dashboard.sections)),
    }


_SOURCES = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "hide": 0,
    "multi": False,
    "includeAll": False,
    "current": {},
    "options": [],
    "regex": "",
}


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": SOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": variable.every,
        "includeAll": variable.every,
        "allValue": ".*" if variable.every else None,
        "current": {"text": ["All"], "value": ["$__all"]} if variable.every else {},
        "options": [],
        "regex": "",
    }


def _link(title: str, path: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "link",
        "url": path,
        "icon": "dashboard",
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _placed(sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    """Yield headings and panels, numbered, from left to right and from top to bottom."""
    number, top = 1, 0
    for section in sections:
        yield _row(section.title, number, top)
        number, top, left, tallest = number + 1, top + 1, 0, 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            number, left, tallest = number + 1, left + panel.width, max(tallest, panel.height)
        top += tallest


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    place = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "pluginVersion": GRAFANA,
        "datasource": SOURCE,
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(_overrides(panel))},
        "options": _options(panel),
        "transformations": _transformations(panel),
    }


def _target(panel: Panel, place: int, query: Query) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + place),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": query.once,
        "range": not query.once,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    judged = panel.thresholds or panel.mappings or panel.kind == "stat"
    found: dict[str, Any] = {
        "unit": panel.unit,
        "noValue": panel.no_value,
        "color": {"mode": "thresholds" if judged else "palette-classic"},
        "thresholds": _thresholds(panel.thresholds, panel.base),
        "mappings": _mappings(panel.mappings),
        "custom": _custom(panel),
    }
    for key, value in (("min", panel.low), ("max", panel.high), ("decimals", panel.decimals)):
        if value is not None:
            found[key] = value
    return found


def _thresholds(steps: Sequence[tuple[float, str]], base: str) -> dict[str, Any]:
    first: dict[str, Any] = {"color": base, "value": None}
    return {"mode": "absolute", "steps": [first, *({"color": c, "value": v} for v, c in steps)]}


def _mappings(mappings: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    if not mappings:
        return []
    options = {
        value: {"index": place, "text": word, "color": colour}
        for place, (value, word, colour) in enumerate(mappings)
    }
    return [{"type": "value", "options": options}]


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if panel.steps else "linear",
            "lineWidth": 2,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "auto",
            "spanNulls": SPANNED_MILLISECONDS,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
        }
    if panel.kind == "table":
        return {"align": "auto", "cellOptions": _cell(panel.matrix is not None), "filterable": False}
    if panel.kind == "state-timeline":
        return {"fillOpacity": 80, "lineWidth": 0}
    return {}


def _cell(coloured: bool) -> dict[str, Any]:
    return {"type": "color-background", "mode": "basic"} if coloured else {"type": "auto"}


def _overrides(panel: Panel) -> Iterator[dict[str, Any]]:
    for name, colour in panel.colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        yield _override(name, {"color": fixed})
    if panel.matrix is not None:  # the first column holds names, not values
        plain = {"custom.cellOptions": _cell(False), "unit": "none", "custom.width": 120}
        yield _override(panel.matrix[2], plain)
    for column in panel.columns:
        properties: dict[str, Any] = {}
        if column.unit:
            properties["unit"] = column.unit
        if column.thresholds:
            properties["thresholds"] = _thresholds(column.thresholds, column.base)
            properties["color"] = {"mode": "thresholds"}
            properties["custom.cellOptions"] = _cell(True)
        if column.link:
            properties["links"] = [{"title": f"Open {column.title}", "url": column.link}]
        if properties:
            yield _override(column.title, properties)


def _override(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def _options(panel: Panel) -> dict[str, Any]:
    calcs = {"values": False, "calcs": ["lastNotNull"], "fields": ""}
    legend = {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"], "showLegend": True}
    by_kind: dict[Kind, dict[str, Any]] = {
        "timeseries": {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {
            "reduceOptions": calcs,
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "auto" if len(panel.queries) == 1 else "value_and_name",
            "justifyMode": "auto",
            "orientation": "auto",
        },
        "bargauge": {
            "reduceOptions": calcs,
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
        },
        "table": {"showHeader": True, "cellHeight": "sm", "sortBy": _sorting(panel)},
        "state-timeline": {
            "mergeValues": True,
            "showValue": "never",
            "rowHeight": 0.85,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single"},
        },
    }
    return by_kind[panel.kind]


def _sorting(panel: Panel) -> list[dict[str, Any]]:
    return [] if panel.sort is None else [{"displayName": panel.sort[0], "desc": panel.sort[1]}]


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    if panel.matrix is not None:
        return list(_to_matrix(*panel.matrix))
    if not panel.columns:
        return []
    order = {column.key: place for place, column in enumerate(panel.columns)}
    titles = {column.key: column.title for column in panel.columns}
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": list(order)}}},
        {"id": "organize", "options": {"indexByName": order, "renameByName": titles, "excludeByName": {}}},
    ]


def _to_matrix(row: str, column: str, corner: str) -> Iterator[dict[str, Any]]:
    """Turn one row a pair of labels into a square, its rows sorted as numbers.

    Columns stand in the order in which they appear: each row of an accuracy matrix brings one more.
    """
    number = {"targetField": row, "destinationType": "number"}
    yield {"id": "convertFieldType", "options": {"fields": {}, "conversions": [number]}}
    yield {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": row, "desc": False}]}}
    options = {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "null"}
    yield {"id": "groupingToMatrix", "options": options}
    titles = {f"{row}\\{column}": corner}
    yield {"id": "organize", "options": {"renameByName": titles, "indexByName": {}, "excludeByName": {}}}
