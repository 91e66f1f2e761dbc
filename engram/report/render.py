"""Write the report of a run into its directory: the one function that the runner and the report Job call."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engram.report.charts import report_charts
from engram.report.document import build_document
from engram.report.html import report_html
from engram.report.markdown import report_markdown
from engram.report.png import write_figures
from engram.report.rank import COLUMNS
from engram.report.record import Record


def write_report(run_dir: Path, record: Record) -> Path:
    """Write report.html, report.md, report.json, leaderboard.csv, figures/*.png and, once a task is finished,
    matrix.json.

    Returns the path of report.html. The same record gives the same bytes; files of an earlier report are
    replaced. Raises ConfigurationError when jinja2 or matplotlib is missing, OSError when the directory
    cannot be written.
    """
    document = build_document(record)
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_json(run_dir / "report.json", document)
    if document["tasks"]:
        _write_json(run_dir / "matrix.json", document["matrix"])
    (run_dir / "leaderboard.csv").write_text(_leaderboard_row(document), encoding="utf-8")
    charts = report_charts(document)
    figures = write_figures(run_dir / "figures", document, charts)
    names = [path.relative_to(run_dir).as_posix() for path in figures]
    (run_dir / "report.md").write_text(report_markdown(document, names), encoding="utf-8")
    page = run_dir / "report.html"
    # Last and at once: where there is a page, the whole report was written.
    partial = run_dir / ".report.html.tmp"
    partial.write_text(report_html(document), encoding="utf-8")
    partial.replace(page)
    return page


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _leaderboard_row(document: Mapping[str, Any]) -> str:
    """Return the run as a leaderboard of one row, with the column names of a comparison.

    Intransigence is empty: it needs a joint run beside this one, which a comparison finds.
    """
    spec, cost, metrics = document["setting"]["job"].get("spec", {}), document["cost"], document["metrics"]
    newest = metrics["newest_task_accuracy_by_task"]
    measured = {
        **metrics,
        "intransigence": None,
        "newest_task_accuracy": newest[-1] if newest else None,
        "megabytes_down": cost["bytes_down"] / 1e6,
        "megabytes_up": cost["bytes_up"] / 1e6,
        "cpu_seconds": cost["cpu_seconds"],
        "seconds": cost["seconds"],
    }
    head = {
        "name": document["name"],
        "status": document["status"],
        "algorithm.name": spec.get("algorithm", {}).get("name", ""),
        "dataset.name": document["setting"]["dataset"]["name"],
        "seed": spec.get("seed", 0),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *(column.key for column in COLUMNS)])
    numbers = ["" if measured[c.key] is None else repr(measured[c.key]) for c in COLUMNS]
    writer.writerow([*head.values(), *numbers])
    return text.getvalue()
