"""What the figures of a report show, not how: the SVG in the page and the PNG files draw the same charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.report.formats import evenly
from engram.report.leaderboard import Leaderboard

PHASES = {"upload": "upload and wait"}
"""Phases whose name alone would mislead: upload is all the time until the last update was in."""

MOST_LINES = 12
MOST_POINTS = 1000

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """One line; y is None where nothing was measured (the line has a gap there)."""

    name: str
    points: tuple[Point, ...]
    dashed: bool = False
    errors: tuple[float | None, ...] = ()
    """Half-widths of the error bars, one a point; empty for none."""


@dataclass(frozen=True)
class LineChart:
    """Lines over tasks or rounds; shares are drawn in percent."""

    key: str
    title: str
    summary: str
    """What it shows, in words: the text alternative."""
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    percent: bool = True
    ordinal: bool = False
    """The series are in an order (tasks): colours run from dark to light instead of apart."""
    bands: tuple[tuple[float, float, str], ...] = ()
    """(from, to, name) along x: the tasks behind a line over rounds."""


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars, each made of parts."""

    key: str
    title: str
    summary: str
    unit: str
    """seconds or bytes."""
    parts: tuple[str, ...]
    bars: tuple[tuple[str, tuple[float, ...]], ...]


Chart = LineChart | BarChart


def report_charts(document: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of a report that have something to show, by key."""
    found: list[Chart | None] = [
        _after_each_task(document),
        _life_of_tasks(document),
        _over_rounds(document, "loss", "Training loss in each round", "loss", percent=False),
        _over_rounds(document, "accuracy", "Accuracy after each round", "accuracy", percent=True),
        _time(document),
        _traffic(document),
    ]
    return {chart.key: chart for chart in found if chart is not None}


def _after_each_task(document: Mapping[str, Any]) -> LineChart | None:
    metrics = document["metrics"]
    wanted = (
        ("all classes seen", "accuracy_by_task", False),
        ("newest task", "newest_task_accuracy_by_task", False),
        ("forget rate", "forget_rate_by_task", True),
    )
    if len(metrics["accuracy_by_task"]) < 2:
        return None
    return LineChart(
        key="accuracy_by_task",
        title="Accuracy and forgetting after each task",
        summary="Accuracy over all classes seen, accuracy on the newest task, and forget rate, by task.",
        x_label="after task",
        y_label="share of test images",
        series=tuple(Series(name, _points(metrics[key]), dashed) for name, key, dashed in wanted),
    )


def _life_of_tasks(document: Mapping[str, Any]) -> LineChart | None:
    square: Sequence[Sequence[float | None]] = document["task_accuracy"]
    if len(square) < 2:
        return None
    tasks = evenly(len(square), MOST_LINES)
    series = [
        Series(
            f"task {task + 1}",
            tuple((after + 1, square[after][task]) for after in range(task, len(square))),
        )
        for task in tasks
    ]
    return LineChart(
        key="life_of_tasks",
        title="What became of each task",
        summary="One line for each task: its accuracy when it was learned and after every later task.",
        x_label="after task",
        y_label="accuracy on the task's own classes",
        series=tuple(series),
        ordinal=True,
    )


def _over_rounds(
    document: Mapping[str, Any], key: str, title: str, label: str, *, percent: bool
) -> LineChart | None:
    rounds = document["rounds"]
    points = tuple((row["number"], row[key]) for row in rounds)
    if sum(value is not None for _, value in points) < 2:
        return None
    bands: list[tuple[float, float, str]] = []
    for row in rounds:
        number, name = float(row["number"]), f"task {row['task']}"
        if bands and bands[-1][2] == name:
            bands[-1] = (bands[-1][0], number + 0.5, name)
        else:
            bands.append((number - 0.5, number + 0.5, name))
    return LineChart(
        key=f"{key}_by_round",
        title=title,
        summary=f"The {label} of every round of the run; bands are the tasks.",
        x_label="round",
        y_label=label,
        series=(Series(label, tuple(points[index] for index in evenly(len(points), MOST_POINTS))),),
        percent=percent,
        bands=tuple(bands),
    )


def _time(document: Mapping[str, Any]) -> BarChart | None:
    phases = document["time_and_traffic"]["seconds_by_phase"]
    if not any(phases.values()):
        return None
    return BarChart(
        key="time_by_phase",
        title="Where the time went",
        summary="Seconds of each phase over the whole run.",
        unit="seconds",
        parts=("seconds",),
        bars=tuple((PHASES.get(phase, phase), (seconds,)) for phase, seconds in phases.items()),
    )


def _traffic(document: Mapping[str, Any]) -> BarChart | None:
    rows = document["time_and_traffic"]["bytes_by_task"]
    if not any(row["down"] + row["up"] for row in rows):
        return None
    shown = [rows[index] for index in evenly(len(rows), MOST_LINES)]
    return BarChart(
        key="bytes_by_task",
        title="What went over the wire",
        summary="Bytes down to the workers and up from them, by task.",
        unit="bytes",
        parts=("down", "up"),
        bars=tuple((f"task {row['task']}", (row["down"], row["up"])) for row in shown),
    )


def leaderboard_chart(leaderboard: Leaderboard) -> LineChart | None:
    """Return accuracy by task of the first rows, with standard errors over seeds."""
    rows = leaderboard.rows[:6]
    if max((len(row.accuracy_by_task) for row in rows), default=0) < 2:
        return None
    return LineChart(
        key="accuracy_by_task",
        title="Accuracy over all classes seen, after each task",
        summary="One line for each row of the leaderboard, mean over seeds with standard errors.",
        x_label="after task",
        y_label="share of test images",
        series=tuple(
            Series(
                row.label,
                _points([value.mean for value in row.accuracy_by_task]),
                errors=tuple(value.error for value in row.accuracy_by_task),
            )
            for row in rows
        ),
    )


def _points(values: Sequence[float | None]) -> tuple[Point, ...]:
    return tuple((number, value) for number, value in enumerate(values, start=1))
