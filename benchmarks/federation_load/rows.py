"""A line of the table, as it is printed and as it is written to JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

HEADER = (
    "system                     parameters     x compression   s/round      +-   limit  ratio"
    "  MB/worker  CPU s  worker s  server MB  worker MB"
)


@dataclass(frozen=True)
class Row:
    """One measurement; seconds are medians over rounds. None: not measured."""

    system: str
    parameters: int
    workers: int
    compression: str
    seconds_per_round: float | None
    """From the first byte of the broadcast to the closed sum."""
    limit_seconds: float | None = None
    """What the loopback and one weighted sum take in the same run."""
    spread_seconds: float | None = None
    """Half the distance between the quartiles."""
    bytes_per_worker_round: int | None = None
    """At the worker's socket, both ways."""
    server_cpu_seconds_per_round: float | None = None
    worker_cpu_seconds_per_round: float | None = None
    """Of one worker."""
    server_peak_mb: float | None = None
    worker_peak_mb: float | None = None
    """The largest of the workers' processes."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the limit a round takes."""
        if self.seconds_per_round is None or not self.limit_seconds:
            return None
        return self.seconds_per_round / self.limit_seconds


def row_of(
    system: str,
    parameters: int,
    workers: int,
    limit: float,
    said: dict[str, Any],
    heard: list[dict[str, Any]],
) -> Row:
    """Return the line of what a server `said` and its workers; their first round is left out."""
    seconds = said["seconds"][1:]
    quartiles = statistics.quantiles(seconds, n=4)
    carried = [size for one in heard for size in one["bytes"]]
    used = [spent for one in heard for spent in one.get("cpu_seconds", [])[1:]]
    return Row(
        system,
        parameters,
        workers,
        "none",
        seconds_per_round=statistics.median(seconds),
        limit_seconds=limit,
        spread_seconds=(quartiles[2] - quartiles[0]) / 2,
        bytes_per_worker_round=round(statistics.median(carried)) if carried else None,
        server_cpu_seconds_per_round=statistics.median(said["cpu_seconds"][1:]),
        worker_cpu_seconds_per_round=statistics.median(used) if used else None,
        server_peak_mb=said["peak_mb"],
        worker_peak_mb=max(one["peak_mb"] for one in heard),
    )


def line_of(row: Row) -> str:
    """Return a line of the table."""

    def number(value: float | None, width: int, digits: int) -> str:
        return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"

    ratio = row.ratio
    megabytes = None if row.bytes_per_worker_round is None else row.bytes_per_worker_round / 1e6
    return (
        f"{row.system:<25} {row.parameters:>11,} {row.workers:>5} {row.compression:<11}"
        f"{number(row.seconds_per_round, 10, 4)}{number(row.spread_seconds, 8, 4)}"
        f"{number(row.limit_seconds, 8, 4)}{number(ratio, 7, 2)}{number(megabytes, 11, 2)}"
        f"{number(row.server_cpu_seconds_per_round, 7, 3)}{number(row.worker_cpu_seconds_per_round, 10, 3)}"
        f"{number(row.server_peak_mb, 11, 0)}{number(row.worker_peak_mb, 11, 0)}  {row.note}"
    ).rstrip()
