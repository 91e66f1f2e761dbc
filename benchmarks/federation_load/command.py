"""The command: which measurements, the table, the JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.federation_load.limit import limit_seconds, loopback_bytes_per_second
from benchmarks.federation_load.server import names_of

ROOT = Path(__file__).parents[2]
ROUNDS = {62_000: 40, 1_000_000: 20, 11_200_000: 8}
QUICK_ROUNDS = {62_000: 10, 1_000_000: 5}
WORKERS = (2, 5, 10)
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds are medians over rounds."""

    system: str
    parameters: int
    workers: int
    compression: str
    seconds_per_round: float
    spread_seconds: float
    """Half the distance between the quartiles."""
    limit_seconds: float
    bytes_per_worker_round: int
    server_cpu_seconds_per_round: float
    server_peak_mb: float
    worker_cpu_seconds_per_round: float
    worker_peak_mb: float


def measured(
    parameters: int, workers: int, rounds: int, limit: float, compression: str = "none", disk: bool = False
) -> Row:
    """Run a job with processes and return its line; `disk`: with a checkpoint every round."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(number) for number in (parameters, workers, rounds)] + [compression]
        server = _start("server", *arguments, *([folder] if disk else []))
        started = [server]
        try:
            port = _line(server)
            started += [_start("client", port, name) for name in names_of(workers)]
            heard = [_last(client) for client in started[1:]]
            said = _last(server)
        finally:
            for process in started:
                process.kill()
                process.communicate()
    seconds = said["seconds"][1:]
    quartiles = statistics.quantiles(seconds, n=4)
    return Row(
        system="engram with checkpoints" if disk else "engram",
        parameters=parameters,
        workers=workers,
        compression=compression,
        seconds_per_round=statistics.median(seconds),
        spread_seconds=(quartiles[2] - quartiles[0]) / 2,
        limit_seconds=limit,
        bytes_per_worker_round=round(statistics.median([b for one in heard for b in one["bytes"]])),
        server_cpu_seconds_per_round=statistics.median(said["cpu_seconds"][1:]),
        server_peak_mb=said["peak_mb"],
        worker_cpu_seconds_per_round=statistics.median([s for one in heard for s in one["cpu_seconds"][1:]]),
        worker_peak_mb=max(one["peak_mb"] for one in heard),
    )


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.federation_load.{module}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    if process.stdout is None or not (line := process.stdout.readline().strip()):
        raise RuntimeError("the aggregator's process has ended without a port")
    return line


def _last(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a process says at its end. Raises RuntimeError when it fails."""
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"a process of the measurement ended with {process.returncode}")
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    if said["reason"] != "complete":
        raise RuntimeError(f"a run ended as {said['reason']}")
    return said


def header() -> str:
    """Return the first lines of the table."""
    names = "system                      parameters  x  compression   s/round  +-      limit   ratio"
    return f"{names}  MB/worker  CPU s  worker s  server MB  worker MB"


def line_of(row: Row) -> str:
    """Return a line of the table."""
    return (
        f"{row.system:<26} {row.parameters:>11,} {row.workers:>3} {row.compression:<12} "
        f"{row.seconds_per_round:>8.4f} {row.spread_seconds:>7.4f} {row.limit_seconds:>7.4f} "
        f"{row.seconds_per_round / row.limit_seconds:>6.2f} {row.bytes_per_worker_round / 1e6:>9.2f} "
        f"{row.server_cpu_seconds_per_round:>7.3f} {row.worker_cpu_seconds_per_round:>9.3f} "
        f"{row.server_peak_mb:>9.0f} {row.worker_peak_mb:>9.0f}"
    )


def main() -> int:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Seconds a round beside the limit of the loopback.")
    parser.add_argument("--quick", action="store_true", help="the two small models, few rounds")
    parser.add_argument("--only", type=int, metavar="PARAMETERS", help="one size only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as well")
    options = parser.parse_args()
    sizes = QUICK_ROUNDS if options.quick else ROUNDS
    rate = loopback_bytes_per_second()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; loopback {rate / 1e9:.2f} GB/s in 1 MiB writes\n\n{header()}")
    rows = []
    for parameters, rounds in sizes.items():
        if options.only not in (None, parameters):
            continue
        for workers in WORKERS:
            limit = limit_seconds(rate, parameters, workers)
            for disk in (False, True) if workers == WORKERS[-1] else (False,):
                rows.append(measured(parameters, workers, rounds, limit, disk=disk))
                print(line_of(rows[-1]), flush=True)
    if options.json is not None:
        facts = {"command": " ".join(sys.argv), "machine": machine, "loopback_bytes_per_second": rate}
        options.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0
