"""The table as a part of a Markdown page, between two comments that name the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engram.report.formats import number

NAME = "benchmarks/training.py"


def section(measured: Mapping[str, Any]) -> str:
    """Return what the page says of the content of a JSON file."""
    on_cpu = measured["device"].startswith("CPU")
    unit = "processor time" if on_cpu else "wall time"
    where = f"one thread of {measured['cpu']}" if on_cpu else f"{measured['device']} (host {measured['cpu']})"
    versions = f"engram {measured['engram']}, Python {measured['python']}, PyTorch {measured['torch']}"
    load = number(measured["load_before_and_after"][0])
    head = (
        f"Milliseconds of {unit} that one step of one worker takes on {where}, medians over "
        f"{measured['rounds']} rounds,\n"
        f"by `{measured['command']}`\n({versions}, load {load} before it began).\n"
        "The floor is a bare PyTorch loop that makes the same forward passes and one backward pass,\n"
        "and neither samples nor augments. It was measured beside each algorithm: where equal passes took\n"
        "another time, that is the machine. In brackets: times the design's prototype, on another machine."
    )
    head_row = "| data | algorithm | ms a step | floor | times the floor | prototype's ms | forward passes |"
    lines = [head_row, "|---" * 7 + "|"]
    for row in measured["rows"]:
        passes = ", ".join(f"{count} x {images}" for images, count in row["passes"].items())
        known = row["prototype_milliseconds"]
        lines.append(
            f"| {row['data']} | {row['algorithm']} | {number(row['milliseconds'])} | "
            f"{number(row['floor_milliseconds'])} | {number(row['ratio'], 2)} | "
            f"{'-' if known is None else against_prototype(row['milliseconds'], known)} | {passes} |"
        )
    return "\n".join([head, "", *lines])


def against_prototype(milliseconds: float, prototype: float) -> str:
    """Return the prototype's milliseconds, and how many times as many a step takes."""
    return f"{number(prototype)} ({number(milliseconds / prototype, 2)})"
