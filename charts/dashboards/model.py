"""A dashboard of Grafana as typed data; `charts.dashboards.grafana` makes JSON of it.

Grafana's own JSON is hundreds of lines a panel, most of them defaults, and its grid is counted by hand. Here
a panel says what is its own: the question that it answers, the queries, the unit, how a value is judged.
Every panel has a description, for whoever looks at it did not write it, and a text that stands where there
is no value. The data source is a variable throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

COLUMNS = 24
"""Of Grafana's grid."""

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
