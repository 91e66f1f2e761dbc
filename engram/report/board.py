"""The leaderboard for people: HTML page, Markdown, CSV and a table for the terminal."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engram.report import formats
from engram.report.charts import leaderboard_chart
from engram.report.html import drawn, page
from engram.report.leaderboard import Leaderboard, LeaderboardRow, Statistic, heading
from engram.report.markdown import table, text
from engram.report.rank import BY_KEY, COLUMNS, Column

SCALE = {"share": 100.0, "megabytes": 1.0, "seconds": 1.0}
WIDE = 860
"""Width of a chart that stands alone, in CSS pixels."""
RARE = ("forget_rate_ianvs", "forward_transfer")
"""Columns shown only where they rank the rows; the files have them always."""


def shown_columns(leaderboard: Leaderboard) -> list[Column]:
    """Return the columns worth showing to people: those measured in some row, the rare ones if ranked."""
    ranked = {metric for metric, _ in leaderboard.rank}
    return [
        column
        for column in COLUMNS
        if any(row.values[column.key].n for row in leaderboard.rows)
        and (column.key in ranked or column.key not in RARE)
    ]


def leaderboard_html(leaderboard: Leaderboard, out: Path) -> str:
    """Return the page; links to the runs' reports are relative to the folder `out`."""
    columns = shown_columns(leaderboard)
    compared = [column for column in columns if column.kind == "share"]
    chart = leaderboard_chart(leaderboard)
    facts = leaderboard.facts
    return page(
        "leaderboard.html.j2",
        {
            "title": f"{facts['dataset']}: {formats.plural(len(leaderboard.rows), 'experiment')}",
            "summary": _summary(leaderboard),
            "facts": _facts(leaderboard),
            "notes": leaderboard.notes,
            "order": " then ".join(_order(metric, direction) for metric, direction in leaderboard.rank),
            "paths": leaderboard.shown_paths,
            "measured": columns,
            "compared": compared,
            "rows": [_row(leaderboard, row, columns, compared, out) for row in leaderboard.rows],
            "chart": drawn({"chart": chart}, WIDE)["chart"] if chart else None,
            "unfinished": leaderboard.unfinished,
        },
    )


def leaderboard_markdown(leaderboard: Leaderboard) -> str:
    """Return leaderboard.md: one table, how it is ordered, and the notes."""
    columns = shown_columns(leaderboard)
    header = ["#", *(heading(path) for path in leaderboard.shown_paths), "n", *(c.title for c in columns)]
    rows = [
        [
            str(place),
            *(text(row.settings[path]) for path in leaderboard.shown_paths),
            str(len(row.seeds)),
            *(format_statistic(row.values[column.key], column.kind) for column in columns),
        ]
        for place, row in enumerate(leaderboard.rows, start=1)
    ]
    order = " then ".join(_order(metric, direction) for metric, direction in leaderboard.rank)
    parts = [
        "# Leaderboard",
        _summary(leaderboard),
        table(header, rows, left=1 + len(leaderboard.shown_paths)),
        f"Ordered by {order}. Mean ± standard error over n seeds; shares in %, times in seconds.",
        *(f"> **Note.** {text(note)}" for note in leaderboard.notes),
        *(f"Not ranked: {text(run)} is {status}." for run, status in leaderboard.unfinished),
    ]
    return "\n\n".join(parts) + "\n"


def leaderboard_csv(leaderboard: Leaderboard) -> str:
    """Return one line a row: rank, settings, n, seeds, then mean and standard error of every column."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    measured = [name for column in COLUMNS for name in (column.key, f"{column.key}_se")]
    writer.writerow(["rank", *leaderboard.paths, "n", "seeds", *measured])
    for place, row in enumerate(leaderboard.rows, start=1):
        numbers = [
            "" if value is None else repr(value)
            for column in COLUMNS
            for value in (row.values[column.key].mean, row.values[column.key].error)
        ]
        seeds = " ".join(map(str, row.seeds))
        writer.writerow([place, *row.settings.values(), len(row.seeds), seeds, *numbers])
    return target.getvalue()


def render_leaderboard_text(leaderboard: Leaderboard, width: int | None = None) -> str:
    """Return the leaderboard as a table for the terminal, at most `width` characters wide.

    `width` None takes the terminal's. Columns that rank the rows come first; where the table would be too
    wide, the last ones are left out, and a line says that leaderboard.csv has them.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=io.StringIO(), width=width, color_system=None)
    unbounded = Console(file=io.StringIO(), width=10_000)
    ranked = [BY_KEY[metric] for metric, _ in leaderboard.rank]
    columns = ranked + [column for column in shown_columns(leaderboard) if column not in ranked]
    hidden: list[Column] = []
    while True:
        grid = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
        for title in ("#", *map(heading, leaderboard.shown_paths)):
            grid.add_column(title, no_wrap=True)
        for title in ("n", *(column.title for column in columns)):
            grid.add_column("\n".join(title.split()), justify="right", no_wrap=True)
        for place, row in enumerate(leaderboard.rows, start=1):
            settings = [row.settings[path] for path in leaderboard.shown_paths]
            cells = [format_statistic(row.values[column.key], column.kind) for column in columns]
            grid.add_row(str(place), *settings, str(len(row.seeds)), *cells)
        if unbounded.measure(grid).maximum <= console.width or len(columns) <= len(ranked):
            break
        hidden.append(columns.pop())
    with console.capture() as capture:
        console.print(grid)
        if hidden:
            console.print(f"{formats.plural(len(hidden), 'column')} more in leaderboard.csv")
        for run, status in leaderboard.unfinished:
            console.print(f"Not ranked: {run} is {status}.", markup=False, highlight=False, soft_wrap=True)
    return capture.get()


def format_statistic(value: Statistic, kind: str) -> str:
    """Return `mean ± standard error` in the unit of the column; a dash where nothing was measured."""
    mean, error = _pair(value, kind)
    return f"{mean} ± {error}" if error else mean


def _pair(value: Statistic, kind: str, signed: bool = False) -> tuple[str, str]:
    if value.mean is None:
        return "\N{EN DASH}", ""
    mean = formats.number(value.mean * SCALE[kind])
    if signed and value.mean > 0:
        mean = f"+{mean}"
    return mean, "" if value.error is None else formats.number(value.error * SCALE[kind])


def _row(
    leaderboard: Leaderboard,
    row: LeaderboardRow,
    columns: Sequence[Column],
    compared: Sequence[Column],
    out: Path,
) -> dict[str, Any]:
    cells = []
    for column in columns:
        mean, error = _pair(row.values[column.key], column.kind)
        cells.append({"mean": mean, "error": error, "best": _is_best(leaderboard, row, column)})
    differences = []
    for column in compared if row.differences else ():
        mean, error = _pair(row.differences[column.key], column.kind, signed=True)
        differences.append({"mean": mean, "error": error})
    return {
        "label": row.label,
        "settings": [row.settings[path] for path in leaderboard.shown_paths],
        "seeds": row.seeds,
        "cells": cells,
        "differences": differences,
        "shared": max((value.n for value in row.differences.values()), default=0),
        "runs": [(seed, *_link(Path(run), out)) for seed, run in zip(row.seeds, row.runs, strict=True)],
    }


def _is_best(leaderboard: Leaderboard, row: LeaderboardRow, column: Column) -> bool:
    means = [other.values[column.key].mean for other in leaderboard.rows]
    known = [mean for mean in means if mean is not None]
    mine = row.values[column.key].mean
    if mine is None or len(leaderboard.rows) < 2 or min(known) == max(known):
        return False
    return mine == (max(known) if column.better == "descend" else min(known))


def _link(run: Path, out: Path) -> tuple[str, str]:
    """Return the name of a run and the relative link to its report; no link where there is none."""
    folder = (run.parent if run.is_file() else run).resolve()
    relative = Path(os.path.relpath(folder, out)).as_posix()
    return relative, quote(f"{relative}/report.html") if (folder / "report.html").is_file() else ""


def _order(metric: str, direction: str) -> str:
    return f"{BY_KEY[metric].title.lower()} ({'large' if direction == 'descend' else 'small'} first)"


def _summary(leaderboard: Leaderboard) -> str:
    first = leaderboard.rows[0]
    found = first.values["accuracy"].mean
    start = f"{formats.plural(len(leaderboard.rows), 'experiment')} on {leaderboard.facts['dataset']}."
    if len(leaderboard.rows) == 1 or found is None:
        return start
    lost = first.values["forget_rate"].mean
    tail = "" if lost is None else f" and a forget rate of {formats.share(lost)}"
    return f"{start} First is {first.label} with a final accuracy of {formats.share(found)}{tail}."


def _facts(leaderboard: Leaderboard) -> list[tuple[str, str]]:
    facts = leaderboard.facts
    return [
        ("data", facts["dataset"]),
        ("classes", str(facts["classes"])),
        ("tasks", str(facts["tasks"])),
        ("workers", str(facts["workers"])),
        ("training images", formats.whole(facts["train_samples"])),
        ("test images", formats.whole(facts["test_samples"])),
    ]
