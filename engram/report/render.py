"""Write the report of a run into its directory: the one function that the runner and the report pod call."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.report.charts import report_charts
from engram.report.document import build_document
from engram.report.html import report_html
from engram.report.markdown import report_markdown
from engram.report.png import write_figures
from engram.report.rank import COLUMNS
from engram.report.record import Record

PAGE = "report.html"


def write_report(
    run_dir: Path, record: Record, document: Mapping[str, Any] | None = None, *, figures: bool = True
) -> Path:
    """Write report.html, report.md, report.json, leaderboard.csv, figures/*.png (if asked for: to draw them
    takes longer than all the rest) and, once a task is finished, matrix.json.

    Returns the path of report.html. The same record gives the same bytes; files of an earlier report are
    replaced. `document` is what `build_document` has made of the record, where it knows more. Raises
    ConfigurationError when jinja2 or matplotlib is missing, OSError when the directory cannot be written.
    """
    document = build_document(record) if document is None else document
    run_dir.mkdir(parents=True, exist_ok=True)
    drawn = write_figures(run_dir / "figures", document, report_charts(document)) if figures else []
    texts = report_texts(document, [path.relative_to(run_dir).as_posix() for path in drawn])
    page = run_dir / PAGE
    # Last and at once: where there is a page, the whole report was written.
    partial = run_dir / f".{PAGE}.tmp"
    for name, text in texts.items():
        (partial if name == PAGE else run_dir / name).write_text(text, encoding="utf-8")
    partial.replace(page)
    return page


def report_texts(document: Mapping[str, Any], figures: Sequence[str] = ()) -> dict[str, str]:
    """Return the report's text files by name, the most important first and the page last.

    `figures` are the paths of pictures that report.md shows. Raises ConfigurationError when jinja2 is
    missing.
    """
    texts = {
        "report.json": _json(document),
        "report.md": report_markdown(document, figures),
        "leaderboard.csv": _leaderboard_row(document),
    }
    if document["tasks"]:
        texts["matrix.json"] = _json(document["matrix"])
    return {**texts, PAGE: report_html(document)}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


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
