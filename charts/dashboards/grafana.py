"""From a dashboard to the JSON that Grafana takes: the grid is laid out, and every option has its value.

Grafana's own library reads it strictly in a test (tests/chart/test_grafana.py): no field is unknown, none
that it calls required is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charts.dashboards.model import COLUMNS, Dashboard, Kind, Panel, Query, Section, Variable

SCHEMA_VERSION = 39
"""Of Grafana 10.4 and 11; later ones bring it up to date when they load it."""
GRAFANA = "10.4.0"
SPANNED_MILLISECONDS = 300_000
"""A line goes on over a gap so long: between rounds there is none to measure."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


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
        "options": [],
        "regex": "",
        # Without one Grafana takes the first that it finds.
        **({"current": {"text": ["All"], "value": ["$__all"]}} if variable.every else {}),
    }


def _link(title: str, path: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "link",
        "url": path,
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
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
        cells = _cell(panel.matrix is not None)
        return {"align": "auto", "cellOptions": cells, "filterable": False, "inspect": False}
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
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
        "bargauge": {
            "reduceOptions": calcs,
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "namePlacement": "auto",
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "maxVizHeight": 300,
            "legend": {"displayMode": "list", "placement": "bottom", "calcs": [], "showLegend": False},
        },
        "table": {"frameIndex": 0, "showHeader": True, "cellHeight": "sm", "sortBy": _sorting(panel)},
        "state-timeline": {
            "mergeValues": True,
            "showValue": "never",
            "rowHeight": 0.85,
            "legend": {"displayMode": "list", "placement": "bottom", "calcs": [], "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
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
