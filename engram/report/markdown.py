"""The report and the leaderboard as Markdown, for pull requests, wikis and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engram.report import formats

MOST_ROWS = 50


def report_markdown(document: Mapping[str, Any], figures: Sequence[str]) -> str:
    """Return report.md; `figures` are paths relative to the run directory."""
    parts = [
        f"# {text(document['name'])}",
        f"*{document['status']}*. {text(document['summary'])}",
        text(document["message"]),
        *(f"> **Note.** {text(note)}" for note in document["notes"]),
        "## Measures",
        _measures(document),
        "## Accuracy matrix",
        "After the task of the row, the share of the column's test images that the model gets right.",
        _matrix(document),
        "## Tasks",
        _tasks(document),
        "## Workers",
        _workers(document),
        *_telemetry(document.get("telemetry")),
        "## Faults survived",
        _faults(document["faults"]),
        "## Run it again",
        f"```\n{document['run_again']}\n```",
        *(f"![{name.rpartition('/')[2].removesuffix('.png').replace('_', ' ')}]({name})" for name in figures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(value: str) -> str:
    """Return text of a user's own as Markdown that shows it and does nothing else."""
    for character in "\\`*_[]<>|#!":
        value = value.replace(character, f"\\{character}")
    return " ".join(value.split())


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; the first `left` columns are aligned left, the others right."""
    lines = [header, ["---" if index < left else "---:" for index in range(len(header))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _measures(document: Mapping[str, Any]) -> str:
    rows = [
        [
            item["title"],
            formats.share(item["value"]) + (f": {item['reason']}" if item["reason"] else ""),
            f"`{item['formula']}`",
            text(item["source"]),
        ]
        for item in document["explained"]
    ]
    return table(["measure", "value", "formula", "source"], rows, left=4)


def _matrix(document: Mapping[str, Any]) -> str:
    square = document["task_accuracy"]
    if not square:
        return "No task was finished."
    shown = formats.evenly(len(square), MOST_ROWS)
    rows = [[f"after task {after + 1}", *(_number(square[after][task]) for task in shown)] for after in shown]
    return table(["%", *(f"task {task + 1}" for task in shown)], rows)


def _tasks(document: Mapping[str, Any]) -> str:
    header = ["task", "classes", "when new", "at the end", "all seen", "forget rate", "time", "down", "up"]
    rows = [
        [
            str(row["task"]),
            text(formats.listed(row["class_names"])),
            _number(row["newest_task_accuracy"]),
            _number(row["final_task_accuracy"]),
            _number(row["accuracy"]),
            _number(row["forget_rate"]),
            formats.duration(row["seconds"]),
            formats.size(row["bytes_down"]),
            formats.size(row["bytes_up"]),
        ]
        for row in document["tasks"][:MOST_ROWS]
    ]
    return table(header, rows, left=2) if rows else "No task was finished."


def _workers(document: Mapping[str, Any]) -> str:
    asynchronous = any(row["staleness"] is not None for row in document["workers"])
    behind = ["behind (most)"] if asynchronous else []
    header = [
        "worker",
        "device",
        "samples",
        "labelled",
        "updates",
        "missed",
        *behind,
        "last loss",
        "down",
        "up",
    ]
    rows = [
        [
            text(row["name"]),
            text(row["device"]) or "-",
            str(row["samples"]),
            str(row["labelled"]),
            str(row["accepted"]),
            str(row["absent"] + row["abstained"]),
            *([formats.behind(row["staleness"], row["most_staleness"])] if asynchronous else []),
            "-" if row["loss"] is None else f"{row['loss']:.3f}",
            formats.size(row["bytes_down"]),
            formats.size(row["bytes_up"]),
        ]
        for row in document["workers"][:MOST_ROWS]
    ]
    return table(header, rows, left=2)


def _telemetry(telemetry: Mapping[str, Any] | None) -> list[str]:
    """Return the section on the machines; none where no Prometheus was asked."""
    if telemetry is None:
        return []
    header = [
        "worker",
        "most memory",
        "most GPU memory",
        "GPU busy",
        "disconnected",
        "losses from the record",
    ]
    rows = [
        [
            text(row["name"]),
            *(
                "-" if row[key] is None else formats.size(row[key])
                for key in ("peak_memory_bytes", "peak_gpu_memory_bytes")
            ),
            "-" if row["mean_gpu_utilization"] is None else formats.share(row["mean_gpu_utilization"]),
            "-" if row["disconnected_seconds"] is None else formats.duration(row["disconnected_seconds"]),
            str(row["kept"] or "-"),
        ]
        for row in telemetry["workers"][:MOST_ROWS]
    ]
    source = f"By {text(telemetry['source'])}, one point every {formats.duration(telemetry['step_seconds'])}."
    return ["## Machines, by Prometheus", source, table(header, rows)]


def _faults(faults: Mapping[str, Any]) -> str:
    counted = [
        f"- {name.replace('_', ' ')}: {value}"
        for name, value in faults.items()
        if isinstance(value, int) and value
    ]
    notes = [f"- {text(note)}" for note in faults["notes"]]
    return "\n".join(counted + notes) or "None: every worker delivered every round."


def _number(value: float | None) -> str:
    return "-" if value is None else formats.number(100 * value)
