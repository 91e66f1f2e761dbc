"""The command: which measurements, the table, the JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.federation_load import page, peers, running
from benchmarks.federation_load.core import simulated
from benchmarks.federation_load.limit import limit_seconds, loopback_bytes_per_second
from benchmarks.federation_load.rows import HEADER, Row, line_of
from benchmarks.federation_load.superlink import superlink

ENVIRONMENT = running.ROOT / ".venv-peers"
ROUNDS = {62_000: 40, 1_000_000: 20, 11_200_000: 8}
QUICK_ROUNDS = {62_000: 10, 1_000_000: 5}
WORKERS = (2, 5, 10)
PEER_ROUNDS = {62_000: 10, 1_000_000: 6, 11_200_000: 4}
SUPERLINK = ((62_000, 2), (11_200_000, 2))
"""What is measured of a system that needs seconds for the smallest round."""
SUPERLINK_ROUNDS = 4
CROWD, CROWD_ROUNDS = 1000, 8
CORE, CORE_ROUNDS = 10_000, 10

Measurement = Callable[[], Row]


def measurements(
    sizes: dict[int, int], rate: float, python: Path | None, crowd: bool, compressions: list[str]
) -> Iterator[Measurement]:
    """Yield what is to be measured, in the order of the table."""
    for parameters, rounds in sizes.items():
        for workers in WORKERS:
            limit = limit_seconds(rate, parameters, workers)
            for compression in compressions:
                yield partial(running.measured, parameters, workers, rounds, limit, compression=compression)
            if python is not None:
                yield from of_peers(python, parameters, workers, limit)
        yield partial(running.measured, parameters, workers, rounds, limit, disk=True)
    if crowd:
        first = min(sizes)
        limit = limit_seconds(rate, first, CROWD)
        yield partial(running.crowd, first, CROWD, CROWD_ROUNDS, limit)


def of_peers(python: Path, parameters: int, workers: int, limit: float) -> Iterator[Measurement]:
    """Yield what is to be measured of Flower."""
    rounds = PEER_ROUNDS.get(parameters, min(PEER_ROUNDS.values()))
    yield partial(peers.tried, peers.LEGACY, running.flower, python, parameters, workers, rounds, limit)
    if (parameters, workers) in SUPERLINK:
        yield partial(
            peers.tried, peers.SUPERLINK, superlink, python, parameters, workers, SUPERLINK_ROUNDS, limit
        )


def known_rows(sizes: dict[int, int], rows: list[Row], installed: bool) -> list[Row]:
    """Return the lines of the systems that were not measured here."""
    there = {(row.system, row.parameters, row.workers) for row in rows}
    found = [
        peers.known(name, parameters, workers, "not measured" if installed and name in peers.SYSTEMS else "")
        for name in peers.KNOWN
        for parameters in sizes
        for workers in WORKERS
        if (name, parameters, workers) not in there
    ]
    return [row for row in found if row is not None]


def main() -> int:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Seconds a round beside the limit of the loopback.")
    parser.add_argument("--quick", action="store_true", help="the two small models, few rounds")
    parser.add_argument("--only", type=int, metavar="PARAMETERS", help="one size only")
    parser.add_argument(
        "--peers", action="store_true", help=f"install Flower into {ENVIRONMENT.name} and measure it, too"
    )
    parser.add_argument(
        "--compression", default="none", help="of engram's rows, such as none,float16,int8,topk"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE as well")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the table into FILE, between its two comments"
    )
    options = parser.parse_args()
    load = os.getloadavg()[0]
    python = peers.interpreter(ENVIRONMENT) if not options.quick or options.peers else None
    if python is None and options.peers:
        python = peers.install(ENVIRONMENT)
    compressions = options.compression.split(",")
    wanted = QUICK_ROUNDS if options.quick else ROUNDS
    sizes = {size: rounds for size, rounds in wanted.items() if options.only in (None, size)}
    volume = 1 << 28 if options.quick else 1 << 29
    rate, unpaced = loopback_bytes_per_second(volume), loopback_bytes_per_second(volume, unpaced=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; loopback {rate / 1e9:.2f} GB/s in 1 MiB writes, {unpaced / 1e9:.2f} GB/s unpaced")
    print(f"\n{HEADER}")
    rows = []
    for measure in measurements(sizes, rate, python, not options.quick, compressions):
        rows.append(measure())
        print(line_of(rows[-1]), flush=True)
    for row in known_rows(sizes, rows, python is not None):
        rows.append(row)
        print(line_of(row))
    core = simulated(CORE, CORE_ROUNDS).rounds
    print(f"\nthe round machine alone, {CORE:,} workers: {sum(core) / len(core):.3f} s a round")
    measured = {
        "command": " ".join(["python", "benchmarks/federation.py", *sys.argv[1:]]),
        "machine": machine,
        "load_at_start": round(load, 2),
        "load_at_end": round(os.getloadavg()[0], 2),
        "loopback_bytes_per_second": rate,
        "unpaced_bytes_per_second": unpaced,
        "core_seconds_per_round": sum(core) / len(core),
        "core_workers": CORE,
        "rows": [asdict(row) for row in rows],
    }
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    if options.page is not None:
        page.write(options.page, measured)
    return 0
