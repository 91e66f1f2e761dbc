"""The figures of a measurement as a part of a Markdown page, between two comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.federation_load.limit import design_limit
from benchmarks.federation_load.peers import LEGACY, SUPERLINK

START, END = "<!-- figures of benchmarks/federation.py -->", "<!-- end of figures -->"
OURS, WITH_CHECKPOINTS, SEDNA = "engram", "engram with checkpoints", "Sedna"
COLUMNS = (
    "parameters x workers",
    "engram",
    "limit at 3.5 GB/s",
    "times",
    "limit of this run",
    "times",
    "Flower gRPC",
    "Flower SuperLink",
    "Sedna",
    "CPU s",
    "MB",
)

Line = Mapping[str, Any]


def section(measured: Mapping[str, Any]) -> str:
    """Return what the page says of a measurement, which is the content of the JSON file."""
    rows: Sequence[Line] = measured["rows"]
    ours = [row for row in rows if row["system"] == OURS and row["compression"] == "none" and not row["note"]]
    rate = measured["loopback_bytes_per_second"]
    table = [_cells(COLUMNS), "|---" * len(COLUMNS) + "|", *(_line(row, rows, rate) for row in ours)]
    return "\n".join([*_head(measured), "", *table, "", *_rest(measured, rows)])


def write(page: Path, measured: Mapping[str, Any]) -> None:
    """Put the figures of a measurement into a page that has a place for them."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n{section(measured)}\n{END}{after}", encoding="utf-8")


def shown(page: str) -> str:
    """Return the figures that a page shows."""
    found = re.search(f"{re.escape(START)}\n(.*?)\n{re.escape(END)}", page, re.DOTALL)
    return "" if found is None else found[1]


def _head(measured: Mapping[str, Any]) -> list[str]:
    rate, load = measured["loopback_bytes_per_second"] / 1e9, measured["load_at_start"]
    # A file of a run before this was measured does not have it.
    unpaced = measured.get("unpaced_bytes_per_second")
    beside = "" if unpaced is None else f", {unpaced / 1e9:.1f} GB/s unpaced, as engram sends large messages"
    return [
        f"Median seconds a round by `{measured['command']}`",
        f"on {measured['machine']} (load {load:.1f} before it began), from the first byte of the broadcast",
        "to the closed sum; nothing is trained. A limit is what every model down and up and one weighted sum",
        "take: at 3.5 GB/s, for which the bars were set (a third of Flower gRPC, 2.5 and 3 times the limit),",
        f"and at what this run's loopback carries in 1 MiB writes ({rate:.1f} GB/s{beside}).",
        "CPU seconds a round and peak memory are the aggregator's. In brackets: not of this run.",
    ]


def _line(row: Line, rows: Sequence[Line], rate: float) -> str:
    size = (row["parameters"], row["workers"])
    others = [_of(rows, system, size) for system in (LEGACY, SUPERLINK, SEDNA)]
    seconds, limit = row["seconds_per_round"], row["limit_seconds"]
    design = design_limit(limit, rate, *size)
    cells = [
        f"{row['parameters']:,} x {row['workers']}",
        f"**{_seconds(seconds)}**",
        _seconds(design),
        f"{seconds / design:.1f}",
        _seconds(limit),
        f"{seconds / limit:.1f}",
        *others,
        f"{row['server_cpu_seconds_per_round']:.3f}",
        f"{row['server_peak_mb']:.0f}",
    ]
    return _cells(cells)


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _of(rows: Sequence[Line], system: str, size: tuple[int, int]) -> str:
    found = [row for row in rows if row["system"] == system and (row["parameters"], row["workers"]) == size]
    if not found or found[0]["seconds_per_round"] is None:
        return "-"
    seconds = _seconds(found[0]["seconds_per_round"])
    return f"({seconds})" if found[0]["note"] else seconds


def _rest(measured: Mapping[str, Any], rows: Sequence[Line]) -> list[str]:
    disk = [row for row in rows if row["system"] == WITH_CHECKPOINTS]
    checkpoints = ", ".join(
        f"{_seconds(row['seconds_per_round'])} s at {row['parameters']:,} x {row['workers']}" for row in disk
    )
    sentences = [f"With a checkpoint after every round: {checkpoints}."]
    sentences += [
        f"{row['workers']:,} connected workers, {row['parameters']:,} parameters: "
        f"{_seconds(row['seconds_per_round'])} s a round, {row['note']}, {row['server_peak_mb']:.0f} MB."
        for row in rows
        if row["system"] == OURS and row["note"]
    ]
    sentences.append(
        f"The round machine alone takes {measured['core_seconds_per_round']:.2f} s a round of "
        f"{measured['core_workers']:,} workers."
    )
    return sentences


def _seconds(value: float) -> str:
    """Return seconds with as many digits as say something."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"
