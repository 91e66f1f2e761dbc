"""Draws a dashboard with matplotlib, from the answers to its own queries: what Grafana would show, roughly.

There is no Grafana where these tests run, and a page about dashboards needs pictures. Layout, titles, units,
colours and thresholds are those of the dashboard; fonts and curves are not Grafana's, and the picture says
so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from charts.dashboards.grafana import as_json
from charts.dashboards.model import COLUMNS, Column, Dashboard, Panel, Query
from tests.observability.prometheus import Series
from tests.observability.questions import Reader, named

COLUMN, LINE = 0.66, 0.30
"""Inches of one column and of one line of Grafana's grid."""
RESOLUTION = 90
PAPER, INK, MUTED, EDGE = "#f4f5f5", "#24292e", "#5f6771", "#d8dadf"
GAP = 15
"""Steps without a value after which a line breaks."""
COLOURS = {
    "green": "#56a64b",
    "dark-green": "#37872d",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "red": "#e02f44",
    "blue": "#3274d9",
    "purple": "#a352cc",
    "text": INK,
}
PALETTE = ("#56a64b", "#e0b400", "#3274d9", "#ff780a", "#e02f44", "#0b7fab", "#a352cc", "#8f3bb8", "#7c6b00")
SPEEDS = ("B/s", "kB/s", "MB/s", "GB/s")
NOTE = "drawn by our own renderer from the dashboard's queries, not Grafana"
STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 8.0, "axes.linewidth": 0.6}

Answers = Sequence[tuple[Query, list[Series]]]
Ask = Callable[[Dashboard, Panel], Answers]


@dataclass(frozen=True)
class Canvas:
    """A figure and its grid."""

    figure: Figure
    lines: int

    def place(self, grid: Mapping[str, int], top: float = 0.0, below: float = 0.0) -> Axes:
        """Return axes at a place of the grid, less `top` and `below` inches."""
        height = self.figure.get_figheight()
        left, width = grid["x"] * COLUMN, grid["w"] * COLUMN
        upper = height - HEAD - grid["y"] * LINE
        lower = upper - grid["h"] * LINE
        pad = 0.07
        total = self.figure.get_figwidth()
        box = (left + pad) / total, (lower + pad + below) / height
        size = (width - 2 * pad) / total, (upper - lower - 2 * pad - top - below) / height
        axes: Axes = self.figure.add_axes((*box, *size))
        return axes


HEAD = 0.75
"""Inches above the grid: the title and the variables."""


def draw(dashboard: Dashboard, reader: Reader, file: Path, ask: Ask) -> list[str]:
    """Write the picture of a dashboard; return the panels that had data. `ask` answers a panel's queries."""
    model = as_json(dashboard)["panels"]
    lines = max(item["gridPos"]["y"] + item["gridPos"]["h"] for item in model)
    panels = {panel.title: panel for panel in dashboard.panels}
    drawn: list[str] = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMNS * COLUMN, lines * LINE + HEAD), facecolor=PAPER)
        canvas = Canvas(figure, lines)
        height = figure.get_figheight()
        figure.text(0.008, 1 - 0.28 / height, dashboard.title, fontsize=15, weight="bold", color=INK)
        chosen = f"namespace: {reader.namespace}    job: {reader.job}".replace(".*", "All")
        figure.text(0.008, 1 - 0.56 / height, chosen, fontsize=9.5, color=MUTED)
        figure.text(0.992, 1 - 0.28 / height, NOTE, fontsize=9.5, color=MUTED, ha="right", style="italic")
        for item in model:
            if item["type"] == "row":
                _heading(canvas, item)
            else:
                panel = panels[item["title"]]
                if _draw_panel(canvas, item["gridPos"], panel, ask(dashboard, panel), reader):
                    drawn.append(panel.title)
        FigureCanvasAgg(figure)
        figure.savefig(file, dpi=RESOLUTION, metadata={"Software": None})
    return drawn


def _heading(canvas: Canvas, item: Mapping[str, Any]) -> None:
    axes = canvas.place(item["gridPos"])
    axes.axis("off")
    axes.text(
        0.0, 0.3, item["title"], fontsize=11, weight="bold", color=INK, va="center", transform=axes.transAxes
    )


def _draw_panel(
    canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader
) -> bool:
    """Draw a panel; tell whether there was anything to draw."""
    frame = canvas.place(grid)
    frame.set_facecolor("white")
    frame.set_xticks([])
    frame.set_yticks([])
    for spine in frame.spines.values():
        spine.set_color(EDGE)
    frame.annotate(
        panel.title, (0, 1), (6, -5), "axes fraction", "offset points", va="top", fontsize=8.5, weight="bold"
    )
    if not any(found for _, found in answers):
        frame.text(0.5, 0.45, panel.no_value, ha="center", va="center", color=MUTED, fontsize=10, wrap=True)
        return False
    BY_KIND[panel.kind](canvas, grid, panel, answers, reader)
    return True


def _stat(canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader) -> None:
    axes = canvas.place(grid, top=0.22)
    axes.axis("off")
    values = [(named(query.legend, one.labels), one.value) for query, found in answers for one in found]
    for place, (name, value) in enumerate(values):
        x = (place + 0.5) / len(values)
        colour = _judged(value, panel.thresholds, panel.base)
        size = 21 if len(values) < 4 else 15
        text = written(value, panel.unit, panel.decimals)
        axes.text(x, 0.46, text, ha="center", va="center", fontsize=size, weight="bold", color=colour)
        if len(values) > 1:
            axes.text(x, 0.12, name, ha="center", va="center", fontsize=8.5, color=MUTED)


def _lines(canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader) -> None:
    named_series = [(named(query.legend, one.labels), one) for query, found in answers for one in found]
    named_series.sort(key=lambda item: list(panel.colours).index(item[0]) if item[0] in panel.colours else 99)
    axes = canvas.place(grid, top=0.27, below=0.2)
    inset = axes.get_position()
    axes.set_position(
        (inset.x0 + 0.033, inset.y0, inset.width - 0.033 - 0.11 * min(1, 12 / grid["w"]), inset.height)
    )
    base = reader.start
    if panel.stacked:
        _stack(axes, panel, named_series, base, reader.step)
    else:
        for place, (name, one) in enumerate(named_series):
            x, y = _broken(one, base, GAP * reader.step)
            style = "steps-post" if panel.steps else "default"
            axes.plot(x, y, color=_colour(panel, name, place), lw=1.4, label=name, drawstyle=style)
    axes.set_xlim(0, reader.end - base)
    if panel.low is not None:
        axes.set_ylim(bottom=panel.low)
    if panel.high is not None:
        axes.set_ylim(top=panel.high * 1.03)
    elif not any(value for _, one in named_series for _, value in one.points):
        axes.set_ylim(top=1)
    elif panel.low is not None:
        axes.set_ylim(top=axes.dataLim.ymax * 1.1)
    _ticks(axes, panel.unit, grid["w"])
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=7, handlelength=1.2)


def _broken(one: Series, base: float, gap: float) -> tuple[list[float], list[float]]:
    """Return times and values of a line, broken where there was nothing to see for longer than `gap`."""
    x: list[float] = []
    y: list[float] = []
    for moment, value in one.points:
        if x and moment - base - x[-1] > gap:
            x.append(moment - base)
            y.append(math.nan)
        x.append(moment - base)
        y.append(value)
    return x, y


def _next(moments: Sequence[float], moment: float) -> float:
    return min(later for later in moments if later > moment)


def _stack(
    axes: Axes, panel: Panel, named_series: Sequence[tuple[str, Series]], base: float, step: float
) -> None:
    """Draw lines on top of each other; where there was nothing to see for long they fall to 0."""
    moments = sorted({moment for _, one in named_series for moment, _ in one.points})
    ends = [now for now, after in pairwise(moments) if after - now > GAP * step]
    moments = sorted([*moments, *(end + step for end in ends), *(_next(moments, end) - step for end in ends)])
    rows = []
    for _, one in named_series:
        known = dict(one.points)
        rows.append([known.get(moment, 0.0) for moment in moments])
    colours = [_colour(panel, name, place) for place, (name, _) in enumerate(named_series)]
    labels = [name for name, _ in named_series]
    x = [moment - base for moment in moments]
    axes.stackplot(x, *rows, labels=labels, colors=colours, alpha=0.75, step="post" if panel.steps else None)


def _ticks(axes: Axes, unit: str, columns: int) -> None:
    axes.grid(True, color="#ececee", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, colors=MUTED, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=max(4, columns // 2)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 60:.1f} min" if value else "start")
    axes.yaxis.set_major_formatter(lambda value, _: written(value, unit))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(EDGE)


def _bars(canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader) -> None:
    axes = canvas.place(grid, top=0.25)
    axes.axis("off")
    bars = [(named(query.legend, one.labels), one.value) for query, found in answers for one in found]
    bars = bars[:12]
    top = panel.high if panel.high is not None else max((value for _, value in bars), default=0.0) or 1.0
    room = 0.2 if max(len(name) for name, _ in bars) < 14 else 0.34
    for place, (name, value) in enumerate(bars):
        y, width = 1 - (place + 0.5) / len(bars), 0.83 - room
        thick = 0.62 / len(bars)
        judged = _judged(value, panel.thresholds, panel.base)
        colour = COLOURS.get(panel.colours[name], panel.colours[name]) if name in panel.colours else judged
        axes.text(room - 0.01, y, name, ha="right", va="center", fontsize=7.5, color=INK)
        axes.barh(y, width, thick, room, color="#eef0f2")
        axes.barh(y, width * max(0.0, min(1.0, value / top)), thick, room, color=colour)
        text = written(value, panel.unit, panel.decimals)
        axes.text(0.99, y, text, ha="right", va="center", fontsize=8, weight="bold", color=colour)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _timeline(
    canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader
) -> None:
    axes = canvas.place(grid, top=0.27, below=0.45)
    inset = axes.get_position()
    axes.set_position((inset.x0 + 0.095, inset.y0, inset.width - 0.1, inset.height))
    known = {float(number): (word, COLOURS.get(colour, colour)) for number, word, colour in panel.mappings}
    rows = sorted((named(query.legend, one.labels), one) for query, found in answers for one in found)
    for place, (_, one) in enumerate(rows):
        for moment, value in one.points:
            box = [(moment - reader.start, reader.step)]
            axes.broken_barh(box, (place - 0.4, 0.8), color=known[value][1], lw=0)
    axes.set_xlim(0, reader.end - reader.start)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _ticks(axes, "none", grid["w"])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    handles = [Patch(color=colour, label=word) for word, colour in known.values()]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.15, -0.1), ncols=6, frameon=False, fontsize=7.5
    )


def _table(canvas: Canvas, grid: Mapping[str, int], panel: Panel, answers: Answers, reader: Reader) -> None:
    head, rows = _square(panel, answers) if panel.matrix is not None else _merged(panel, answers)
    axes = canvas.place(grid, top=0.27)
    axes.axis("off")
    lines = max(len(rows) + 1, 6)
    for place, title in enumerate(head):
        axes.text(
            (place + 0.5) / len(head), 1 - 0.5 / lines, title, ha="center", va="center", color="#3274d9"
        )
    for line, row in enumerate(rows, start=1):
        for place, (text, colour) in enumerate(row):
            if colour:
                axes.add_patch(
                    Rectangle(
                        (place / len(head) + 0.002, 1 - (line + 0.95) / lines),
                        1 / len(head) - 0.004,
                        0.9 / lines,
                        color=colour,
                    )
                )
            ink = "white" if colour else INK
            axes.text(
                (place + 0.5) / len(head), 1 - (line + 0.5) / lines, text, ha="center", va="center", color=ink
            )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


Cells = list[list[tuple[str, str]]]


def _square(panel: Panel, answers: Answers) -> tuple[list[str], Cells]:
    """Return the head and the coloured cells of a table of pairs."""
    assert panel.matrix is not None
    row_label, column_label, corner = panel.matrix
    values = {
        (int(one.labels[row_label]), int(one.labels[column_label])): one.value
        for _, found in answers
        for one in found
    }
    columns = sorted({column for _, column in values})
    cells: Cells = []
    for row in sorted({row for row, _ in values}):
        line = [(str(row), "")]
        for column in columns:
            value = values.get((row, column))
            shown = "" if value is None else written(value, panel.unit, panel.decimals)
            line.append((shown, "" if value is None else _judged(value, panel.thresholds, panel.base)))
        cells.append(line)
    return [corner, *map(str, columns)], cells


def _merged(panel: Panel, answers: Answers) -> tuple[list[str], Cells]:
    """Return the head and the cells of a table that puts the answers of several queries side by side."""
    rows: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for place, (_, found) in enumerate(answers):
        for one in found:
            key = tuple(sorted(one.labels.items()))
            rows.setdefault(key, dict(one.labels))[f"Value #{chr(ord('A') + place)}"] = one.value
    found_rows = list(rows.values())
    if panel.sort is not None:
        by = next(column.key for column in panel.columns if column.title == panel.sort[0])
        found_rows.sort(key=lambda row: row.get(by, float("-inf")), reverse=panel.sort[1])
    cells = [[_cell(column, row.get(column.key)) for column in panel.columns] for row in found_rows]
    return [column.title for column in panel.columns], cells


def _cell(column: Column, value: Any) -> tuple[str, str]:
    if not isinstance(value, float):
        return str(value or ""), ""
    colour = _judged(value, column.thresholds, column.base) if column.thresholds else ""
    return written(value, column.unit), colour


def _judged(value: float, thresholds: Sequence[tuple[float, str]], base: str) -> str:
    name = base
    for least, colour in thresholds:
        if value >= least:
            name = colour
    return COLOURS.get(name, name)


def _colour(panel: Panel, name: str, place: int) -> str:
    if name in panel.colours:
        return COLOURS.get(panel.colours[name], panel.colours[name])
    return PALETTE[place % len(PALETTE)]


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value as Grafana writes it in a unit, roughly."""
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f}%"
    if unit in ("bytes", "Bps"):
        step, words = (1024.0, ("B", "KiB", "MiB", "GiB")) if unit == "bytes" else (1000.0, SPEEDS)
        power = min(3, int(math.log(max(1.0, abs(value)), step)))
        return f"{value / step**power:.3g} {words[power]}"
    if unit == "s":
        return f"{1000 * value:.0f} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit == "dateTimeAsLocal":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value / 1000))
    return f"{value:.0f}" if decimals == 0 or value == int(value) else f"{value:.3g}"


BY_KIND: Mapping[str, Callable[[Canvas, Mapping[str, int], Panel, Answers, Reader], None]] = {
    "stat": _stat,
    "timeseries": _lines,
    "bargauge": _bars,
    "table": _table,
    "state-timeline": _timeline,
}
