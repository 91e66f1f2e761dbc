"""The results as a part of a Markdown page, between two comments that name the benchmark."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fcil.bars import Judged, judge
from benchmarks.fcil.rows import Row
from benchmarks.fcil.statistics import UnpairedError, interval, stands_out
from benchmarks.fcil.table import Comparison, Table, comparisons
from benchmarks.fcil.variants import BASELINES, CEILING, OURS, PSEUDO_REPLAY
from engram.report.formats import MINUS, duration, number, share
from engram.report.leaderboard import Statistic

NOTHING = "-"
ELSEWHERE = "†"
"""Marks what was measured on another processor than most of a table."""


def markers(benchmark: str) -> tuple[str, str]:
    """Return the comments around the figures of a benchmark."""
    return f"<!-- figures of {benchmark} -->", f"<!-- end of {benchmark} -->"


def section(facts: Mapping[str, Any], rows: Sequence[Row], benchmark: str, pictures: Sequence[str]) -> str:
    """Return what the page says of the content of a JSON file."""
    table = Table(benchmark, rows)
    parts = [
        _head(facts, table),
        "\n\n".join(pictures),
        _titled("Final accuracy", _accuracies(table)),
        _titled("The trade", _trades(table)),
        _titled("Differences in final accuracy, paired by seed", _differences(table)),
        _titled("Share of the gap closed", _gaps(table)),
        _titled("What must be reached", _verdicts(judge(table))),
    ]
    return "\n\n".join(part for part in parts if part)


def write(page: Path, benchmark: str, text: str) -> None:
    """Put the section of a benchmark into a page that has a place for it.

    Raises SystemExit when the page has none.
    """
    start, end = markers(benchmark)
    whole = page.read_text(encoding="utf-8")
    if start not in whole or end not in whole:
        raise SystemExit(f"{page} has no place for the figures: write\n{start}\n{end}\nwhere they belong")
    before, _, rest = whole.partition(start)
    page.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def shown(page: str, benchmark: str) -> str:
    """Return the section of a benchmark that a page shows."""
    start, end = markers(benchmark)
    found = re.search(f"{re.escape(start)}\n(.*?)\n{re.escape(end)}", page, re.DOTALL)
    return "" if found is None else found[1]


def _head(facts: Mapping[str, Any], table: Table) -> str:
    seeds = sorted({row.seed for row in table.rows})
    spent = math.fsum(row.cpu_seconds or 0.0 for row in table.rows)
    usual, *others = table.processors
    text = (
        f"By `{facts['command']}`: {len(table.rows)} runs, seeds {', '.join(map(str, seeds))},\n"
        f"{duration(spent)} of processor time, engram {facts['engram']}, Python {facts['python']}, PyTorch "
        f"{facts['torch']}, finished {facts['time']},\non {usual}"
    )
    if not others:
        return f"{text}."
    where = ".\n".join(f"on {cpu}: {'; '.join(table.processors[cpu])}" for cpu in others)
    return f"{text}, except\n{where}.\nCPU seconds marked {ELSEWHERE} are not to be compared with the others."


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"### {title}", "", *lines]) if lines else ""


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    if not body:
        return []
    return [_cells(head), "|---" * len(head) + "|", *map(_cells, body)]


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _accuracies(table: Table) -> list[str]:
    """Return mean, standard error and n of every variant at every ratio."""
    head = ["algorithm", *(f"{share(ratio, 0)} labels" for ratio in table.ratios)]
    body = []
    for variant in table.variants:
        means = [table.mean(variant, ratio) for ratio in table.ratios]
        body.append([variant, *(_percent(mean) for mean in means)])
    return _grid(head, body)


def _trades(table: Table) -> list[str]:
    """Return what an algorithm gains and costs, at each ratio."""
    head = [
        "labels",
        "algorithm",
        "final accuracy",
        "average incremental accuracy",
        "forget rate",
        "newest task",
        "MB",
        "CPU s",
        "n",
    ]
    body = []
    for ratio in table.ratios:
        for variant in (name for name in table.variants if table.of(name, ratio)):
            figures = [
                table.mean(variant, ratio, figure)
                for figure in (
                    "final_accuracy",
                    "average_incremental_accuracy",
                    "forget_rate",
                    "newest_task_accuracy",
                )
            ]
            megabytes, seconds = (
                table.mean(variant, ratio, "bytes"),
                table.mean(variant, ratio, "cpu_seconds"),
            )
            cells = [share(ratio, 0), variant, *(_share(figure) for figure in figures)]
            mark = f" {ELSEWHERE}" if table.elsewhere(variant, ratio) else ""
            cells += [_plain(megabytes, 1e6), _plain(seconds, 1.0) + mark, str(len(table.of(variant, ratio)))]
            body.append(cells)
    return _grid(head, body)


def _differences(table: Table) -> list[str]:
    head = ["difference", *(f"{share(ratio, 0)} labels" for ratio in table.ratios)]
    body = []
    for comparison in comparisons():
        cells = [_difference(table, comparison, ratio) for ratio in table.ratios]
        if any(cell != NOTHING for cell in cells):
            body.append([comparison.title, *cells])
    if not body:
        return []
    return [
        "Points of accuracy, mean ± standard error of the mean over seeds, in brackets the 95 % interval of",
        "Student's t. The best of several is the one with the best mean at that ratio, and is named.",
        "",
        *_grid(head, body),
    ]


def _difference(table: Table, comparison: Comparison, ratio: float) -> str:
    try:
        found = table.difference(comparison, ratio)
    except UnpairedError as reason:
        return str(reason)
    if found is None:
        return NOTHING
    named = f", {table.rival(comparison, ratio)}" if len(comparison.rivals) > 1 else ""
    around = interval(found)
    limits = "" if around is None else f" [{_signed(around[0])}, {_signed(around[1])}]"
    return f"{_points(found)}{limits} (n {found.n}{named})"


def _gaps(table: Table) -> list[str]:
    rows = [
        [ours, *(_closed(table, ratio, ours) for ratio in table.ratios)]
        for ours in dict.fromkeys((OURS, "semifci", PSEUDO_REPLAY))
    ]
    body = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    if not body:
        return []
    return [
        f"Of the gap from the best of {', '.join(BASELINES)} to {CEILING}; jackknife standard errors.",
        "A dash and the gap in points where it is not above two of its own standard errors: a share of that",
        "would say nothing.",
        "",
        *_grid(["algorithm", *(f"{share(ratio, 0)} labels" for ratio in table.ratios)], body),
    ]


def _closed(table: Table, ratio: float, ours: str) -> str:
    try:
        found, gap = table.closed(ratio, ours), table.gap(ratio)
    except UnpairedError as reason:
        return str(reason)
    if found is None or gap is None:
        return NOTHING
    return _percent(found, 0) if stands_out(gap) else f"{NOTHING} (gap {_points(gap)})"


def _verdicts(judged: Sequence[Judged]) -> list[str]:
    body = [
        [
            one.bar,
            one.found or NOTHING,
            one.verdict if one.verdict != "missed" else "**missed**",
        ]
        for one in judged
    ]
    return _grid(["bar", "found", "verdict"], body)


def _percent(value: Statistic, digits: int = 1) -> str:
    if value.mean is None:
        return NOTHING
    error = "" if value.error is None else f" ± {number(100 * value.error, digits)}"
    return f"{number(100 * value.mean, digits)}{error} % (n {value.n})"


def _share(value: Statistic) -> str:
    if value.mean is None:
        return "one task"
    error = "" if value.error is None else f" ± {number(100 * value.error)}"
    return f"{number(100 * value.mean)}{error} %"


def _plain(value: Statistic, unit: float) -> str:
    return NOTHING if value.mean is None else number(value.mean / unit)


def _points(value: Statistic) -> str:
    error = "" if value.error is None else f" ± {number(100 * value.error)}"
    return f"{_signed(value.mean)}{error}"


def _signed(value: float | None) -> str:
    text = number(None if value is None else 100 * value)
    return text if text.startswith(MINUS) else f"+{text}"
