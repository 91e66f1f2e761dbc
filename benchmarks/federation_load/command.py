"""The command: which measurements, the table, the JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.federation_load import page, peers, running
from benchmarks.federation_load.core import simulated
from benchmarks.federation_load.limit import limit_seconds, loopback_bytes_per_second
from benchmarks.federation_load.rows import HEADER, Row, line_of
from benchmarks.federation_load.superlink import superlink
from engram.run.facts import environment

ENVIRONMENT = running.ROOT / ".venv-peers"
ROUNDS = {62_000: 40, 1_000_000: 20, 11_200_000: 8}
QUICK_ROUNDS = {62_000: 10, 1_000_000: 5}
WORKERS = (2, 5, 10)
PEER_ROUNDS = {62_000: 10, 1_000_000: 6, 11_200_000: 4}
SUPERLINK = ((62_000, 2), (11_200_000, 2))
"""What is measured of a system that needs seconds for the smallest round."""
SUPERLINK_ROUNDS = 4
SEDNA_MOST, SEDNA_ROUNDS = 62_000, 6
"""Sedna drops what is larger than its limits, such as a million parameters."""
CROWD, CROWD_ROUNDS = 1000, 8
CORE, CORE_ROUNDS = 10_000, 10

Measurement = Callable[[], Row]


def measurements(
    sizes: dict[int, int], rate: float, pythons: Mapping[str, Path], crowd: bool, compressions: list[str]
) -> Iterator[Measurement]:
    """Yield what is to be measured, in the order of the table."""
    for parameters, rounds in sizes.items():
        for workers in WORKERS:
            limit = limit_seconds(rate, parameters, workers)
            for compression in compressions:
                yield partial(running.measured, parameters, workers, rounds, limit, compression=compression)
            yield from of_peers(pythons, parameters, workers, limit)
        yield partial(running.measured, parameters, workers, rounds, limit, disk=True)
    if crowd:
        first = min(sizes)
        limit = limit_seconds(rate, first, CROWD)
        yield partial(running.crowd, first, CROWD, CROWD_ROUNDS, limit)


def of_peers(
    pythons: Mapping[str, Path], parameters: int, workers: int, limit: float
) -> Iterator[Measurement]:
    """Yield what is to be measured of the other systems that there are; `pythons` by system."""
    rounds = PEER_ROUNDS.get(parameters, min(PEER_ROUNDS.values()))
    wanted = {
        peers.LEGACY: (running.flower, rounds, True),
        peers.SUPERLINK: (superlink, SUPERLINK_ROUNDS, (parameters, workers) in SUPERLINK),
        peers.SEDNA: (running.kubeedge, SEDNA_ROUNDS, parameters <= SEDNA_MOST),
    }
    for system, (measure, count, now) in wanted.items():
        if now and system in pythons:
            yield partial(peers.tried, system, measure, pythons[system], parameters, workers, count, limit)


def installed(flower: Path | None) -> dict[str, Path]:
    """Return the interpreter of each system that is installed."""
    found = {peers.LEGACY: flower, peers.SUPERLINK: flower, peers.SEDNA: peers.sedna()}
    return {system: python for system, python in found.items() if python is not None}


def known_rows(sizes: dict[int, int], rows: list[Row], there: Collection[str]) -> list[Row]:
    """Return the lines of what was not measured here; `there`: the systems that are installed."""
    measured = {(row.system, row.parameters, row.workers) for row in rows}
    found = [
        peers.known(name, parameters, workers, "not measured" if name in there else "")
        for name in peers.KNOWN
        for parameters in sizes
        for workers in WORKERS
        if (name, parameters, workers) not in measured
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
    here = environment("websocket", "")
    machine = f"{here.cpu} ({platform.machine()}, {here.cores} cores), Python {here.python}"
    print(f"{machine}; loopback {rate / 1e9:.2f} GB/s in 1 MiB writes, {unpaced / 1e9:.2f} GB/s unpaced")
    print(f"\n{HEADER}")
    rows = []
    pythons = installed(python) if not options.quick or options.peers else {}
    for measure in measurements(sizes, rate, pythons, not options.quick, compressions):
        rows.append(measure())
        print(line_of(rows[-1]), flush=True)
    for row in known_rows(sizes, rows, pythons):
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
