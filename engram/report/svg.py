"""Charts as inline SVG: crisp in print, in the page's own colours, so light and dark both look right.

Colours are CSS classes (`c1` ... `c6`, `ramp` with `--v` from 0 to 1), text inherits the page's font. All
text is escaped: names may come from a user's job file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from engram.report.charts import BarChart, Chart, LineChart, Series
from engram.report.formats import duration, evenly, number, share, size

WIDTH, HEIGHT = 520, 290
LEFT, TOP, BOTTOM = 52, 22, 44
LABEL_GAP = 15
"""Least distance between two labels at the ends of lines."""

MOST_LETTERS = 24
"""Of a name at the end of a line; longer ones are cut, tables have them in full."""

COLOURS = 6

Scale = Callable[[float], float]


def render(chart: Chart, width: int = WIDTH) -> str:
    """Return one <svg> element, `width` CSS pixels wide where the page has room for it."""
    return _lines(chart, width) if isinstance(chart, LineChart) else _bars(chart, width)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) that span low..high."""
    high = high if high > low else low + 1.0
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _figure(chart: Chart, width: int, height: float, parts: Sequence[str]) -> str:
    name = f"{chart.key}-title"
    box = f'viewBox="0 0 {width} {height:g}" style="max-width:{1.15 * width:.0f}px"'
    return (
        f'<svg {box} role="img" aria-labelledby="{name}" class="chart">'
        f'<title id="{name}">{escape(chart.title)}. {escape(chart.summary)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'


def _lines(chart: LineChart, width: int) -> str:
    xs = [x for series in chart.series for x, _ in series.points]
    ys = [y for series in chart.series for _, y in series.points if y is not None]
    longest = max(len(_end_label(chart, series)) for series in chart.series)
    right = width - 18 - 7.5 * longest
    low, high = min(0.0, *ys), max(*ys, 1.0 if chart.percent else 0.0)
    marks = ticks(low, high)
    if chart.bands:
        first, last = chart.bands[0][0], chart.bands[-1][1]
    else:
        pad = 0.04 * (max(xs) - min(xs)) or 0.5
        first, last = min(xs) - pad, max(xs) + pad

    def at_x(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (right - LEFT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - marks[0]) / (marks[-1] - marks[0]) * (HEIGHT - BOTTOM - TOP)

    parts = _bands(chart, at_x)
    for mark in marks:
        y = at_y(mark)
        style = "axis" if mark == 0 else "grid"
        parts.append(f'<line x1="{LEFT}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="{style}"/>')
        shown = share(mark, 0) if chart.percent else f"{mark:g}"
        parts.append(_text(LEFT - 8, y + 4, shown, "tick", "end"))
    whole = sorted(set(xs))
    for index in evenly(len(whole), 8):
        parts.append(_text(at_x(whole[index]), HEIGHT - BOTTOM + 18, f"{whole[index]:g}", "tick", "middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 6, chart.x_label, "name", "middle"))
    parts.append(_text(LEFT - 44, 12, chart.y_label, "name"))
    ends: list[tuple[float, int]] = []
    for index, series in enumerate(chart.series):
        dots = [(at_x(x), None if y is None else at_y(y)) for x, y in series.points]
        parts.extend(_line(chart, index, dots))
        parts.extend(_errors(chart, index, at_x, at_y))
        last_y = next((y for _, y in reversed(dots) if y is not None), None)
        if last_y is not None:
            ends.append((last_y, index))
    for (old, index), new in zip(sorted(ends), _apart([y for y, _ in sorted(ends)]), strict=True):
        text = _end_label(chart, chart.series[index])
        colour, style = _colour(chart, index)
        if abs(new - old) > 3:
            lead = f"M{right + 2:.1f} {old:.1f}L{right + 8:.1f} {new:.1f}"
            parts.append(f'<path d="{lead}" class="lead {colour}"{style}/>')
        parts.append(f'<g class="{colour}"{style}>{_text(right + 11, new + 4, text, "label")}</g>')
    return _figure(chart, width, HEIGHT, parts)


def _bands(chart: LineChart, at_x: Scale) -> list[str]:
    parts: list[str] = []
    wide = len(chart.bands) <= 7
    for index, (start, end, name) in enumerate(chart.bands):
        x, width = at_x(start), at_x(end) - at_x(start)
        if index % 2 == 0:
            tall = HEIGHT - BOTTOM - TOP
            parts.append(f'<rect x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{tall}" class="band"/>')
        if wide:
            parts.append(_text(x + width / 2, TOP + 13, name, "tick", "middle"))
    return parts


def _line(chart: LineChart, index: int, dots: Sequence[tuple[float, float | None]]) -> list[str]:
    """Return the path of a series, broken where a value is missing, with markers where there are few."""
    colour, style = _colour(chart, index)
    path, pen = [], "M"
    for x, y in dots:
        if y is None:
            pen = "M"
        else:
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
    dashed = " dashed" if chart.series[index].dashed else ""
    parts = [f'<path d="{"".join(path)}" class="line {colour}{dashed}"{style}/>']
    if len(dots) <= 60:
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="dot {colour}"{style}/>'
            for x, y in dots
            if y is not None
        ]
    return parts


def _errors(chart: LineChart, index: int, at_x: Scale, at_y: Scale) -> list[str]:
    series = chart.series[index]
    colour, style = _colour(chart, index)
    return [
        f'<path d="M{at_x(x):.1f} {at_y(y - half):.1f}V{at_y(y + half):.1f}" class="error {colour}"{style}/>'
        for (x, y), half in zip(series.points, series.errors, strict=False)
        if y is not None and half
    ]


def _colour(chart: LineChart, index: int) -> tuple[str, str]:
    """Return class and style attribute of a series."""
    if chart.ordinal:
        return "ramp", f' style="--v:{index / max(1, len(chart.series) - 1):.2f}"'
    return f"c{index % COLOURS + 1}", ""


def _end_label(chart: LineChart, series: Series) -> str:
    last = next((y for _, y in reversed(series.points) if y is not None), None)
    name = series.name if len(series.name) <= MOST_LETTERS else series.name[: MOST_LETTERS - 1] + "\u2026"
    if last is None:
        return name
    return f"{name} {share(last) if chart.percent else number(last, 3)}"


def _apart(places: Sequence[float]) -> list[float]:
    """Return sorted label positions moved as little as needed to be `LABEL_GAP` apart and inside."""
    moved = list(places)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + LABEL_GAP)
    over = moved[-1] - (HEIGHT - BOTTOM + 4) if moved else 0.0
    if over > 0:
        moved[-1] -= over
        for index in range(len(moved) - 2, -1, -1):
            moved[index] = min(moved[index], moved[index + 1] - LABEL_GAP)
    return moved


def _bars(chart: BarChart, width: int) -> str:
    bar, gap, top = 20, 12, 26 if len(chart.parts) > 1 else 6
    most = max(sum(values) for _, values in chart.bars)
    left = 14 + 6.8 * max(len(name) for name, _ in chart.bars)
    right = width - 150 if len(chart.parts) > 1 else width - 100
    total = sum(sum(values) for _, values in chart.bars)
    parts: list[str] = []
    if len(chart.parts) > 1:
        x = left
        for index, name in enumerate(chart.parts):
            parts.append(f'<rect x="{x:.1f}" y="4" width="11" height="11" rx="2" class="bar c{index + 1}"/>')
            parts.append(_text(x + 16, 14, name, "tick"))
            x += 40 + 7 * len(name)
    for row, (name, values) in enumerate(chart.bars):
        y, x = top + row * (bar + gap), left
        parts.append(_text(left - 10, y + 14, name, "tick", "end"))
        for index, value in enumerate(values):
            length = value / most * (right - left) if most else 0.0
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{bar}" rx="2" '
                f'class="bar c{index + 1}"/>'
            )
            x += length
        parts.append(_text(x + 8, y + 14, _amount(chart, values, total), "tick"))
    return _figure(chart, width, top + len(chart.bars) * (bar + gap), parts)


def _amount(chart: BarChart, values: Sequence[float], total: float) -> str:
    if chart.unit == "bytes":
        return " + ".join(size(value) for value in values)
    part = f" ({share(sum(values) / total, 0)})" if total else ""
    return duration(sum(values)) + part
