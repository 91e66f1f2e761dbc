"""The command line of benchmarks/operator.py: a cluster, the stages, a table, and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.operator_load import stages
from benchmarks.operator_load.ground import Ground, prepared
from benchmarks.operator_load.process import OperatorProcess
from tests.cluster import binaries, lifecycle
from tests.cluster.api import ApiError
from tests.cluster.control_plane import CONTROLLER_MANAGER, ControlPlane
from tests.cluster.kubectl import KubectlError
from tests.cluster.ports import free_port
from tests.cluster.state import ClusterDirectory

MEGABYTE = 1e6


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    jobs: int
    one_by_one: int
    idle_seconds: float


FULL, QUICK = Scale(1000, 20, 60.0), Scale(50, 8, 15.0)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    figure: str
    value: float
    at_most: float | None
    reached: bool


def main() -> int:
    """Measure, print, and return 1 when a bar is missed."""
    options = _options()
    scale = QUICK if options.quick else FULL
    scale = Scale(options.jobs or scale.jobs, scale.one_by_one, scale.idle_seconds)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is ended, too
    try:
        with _cluster() as control_plane, prepared(control_plane) as ground:
            # It looks for new CRDs every 30 s only: until then nothing that a deleted job had would go.
            control_plane.restart(CONTROLLER_MANAGER)
            found = measured(ground, scale)
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except (binaries.Unavailable, KubectlError, ApiError, OSError, RuntimeError) as error:
        print(f"benchmarks/operator.py: {error}", file=sys.stderr)
        return 2
    rows = _rows(found)
    _show(rows)
    if options.json:
        content = {**found, **_facts(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row.reached for row in rows) else 1


def measured(
    ground: Ground, scale: Scale, namespaces: tuple[str, str] = ("single", "load")
) -> dict[str, Any]:
    """Run the stages one after the other with one operator; return their figures, keys as in the JSON."""
    single, many = namespaces
    processes = ground.control_plane.directory.processes()
    operator = OperatorProcess(processes, ground.kubeconfig, free_port())
    operator.start()
    try:
        _say(f"apply to pods: {scale.one_by_one} jobs, one after the other")
        seconds = stages.one_by_one(ground, operator, single, scale.one_by_one)
        start_memory = operator.memory()
        _say(f"load: {scale.jobs} jobs at once, the operator killed in the middle")
        load = stages.at_once(ground, operator, many, scale.jobs)
        running_memory = operator.memory()
        _say("all pods end")
        seconds_to_succeeded = stages.finish(ground, operator, many, scale.jobs)
        _say(f"idle for {scale.idle_seconds:g} s")
        idle = stages.idle(operator, scale.idle_seconds)
        return {
            "jobs": scale.jobs,
            "apply_to_pods_median_seconds": round(statistics.median(seconds), 4),
            "apply_to_pods_p99_seconds": round(_percentile(seconds, 99), 4),
            "api_writes_per_job": round(load.writes.total() / scale.jobs, 3),
            "operator_peak_mb": round(operator.peak() / MEGABYTE, 1),
            "operator_idle_cpu_percent": round(idle.cpu_percent, 3),
            "api_writes_most_of_a_job": max(load.writes.values()),
            "api_writes": {" ".join(kind): number for kind, number in sorted(load.kinds.items())},
            "duplicates": load.duplicates,
            "pods": load.pods_made,
            "seconds_to_running": round(load.seconds, 1),
            "seconds_to_succeeded": round(seconds_to_succeeded, 1),
            "operator_start_mb": round(start_memory / MEGABYTE, 1),
            "operator_running_mb": round(running_memory / MEGABYTE, 1),
            "operator_idle_mb": round(idle.memory / MEGABYTE, 1),
        }
    finally:
        operator.kill()


@contextmanager
def _cluster() -> Iterator[ControlPlane]:
    """Yield a control plane of our own, which ends with us."""
    lifecycle.sweep()
    directory = ClusterDirectory.named(f"benchmark-{os.getpid()}")
    _say("starting a control plane")
    try:
        lifecycle.up(directory, owned=True)
        found = ControlPlane.load(directory)
        if found is None:
            raise RuntimeError(f"no control plane in {directory.path}")
        yield found
    finally:
        lifecycle.down(directory)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/operator.py",
        description="What the operator costs on a real control plane, with fake nodes.",
    )
    parser.add_argument("--jobs", type=int, help=f"jobs applied at once (default {FULL.jobs})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK.jobs} jobs, {QUICK.idle_seconds:g} s idle"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def _rows(found: dict[str, Any]) -> list[Row]:
    """Return the table: the figures of the bars, then what else is worth knowing."""
    bars: dict[str, float | None] = {
        "apply_to_pods_median_seconds": 0.5,
        "apply_to_pods_p99_seconds": None,
        "api_writes_per_job": 12,
        "api_writes_most_of_a_job": None,
        "duplicates": 0,
        "operator_peak_mb": 250,
        "operator_idle_cpu_percent": 2,
        "operator_idle_mb": None,
        "seconds_to_running": None,
        "seconds_to_succeeded": None,
    }
    return [Row(name, found[name], bar, bar is None or found[name] <= bar) for name, bar in bars.items()]


def _show(rows: list[Row]) -> None:
    """Print the table."""
    print(f"{'figure':32} {'value':>10}  bar")
    for row in rows:
        verdict = (
            "" if row.at_most is None else f"<= {row.at_most:g}: {'reached' if row.reached else 'MISSED'}"
        )
        print(f"{row.figure:32} {row.value:10g}  {verdict}".rstrip())


def _facts() -> dict[str, object]:
    """Return where and with what it was measured."""
    return {
        "command": " ".join(["python", "benchmarks/operator.py", *sys.argv[1:]]),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            "kubernetes": binaries.SOURCES["kube-apiserver"].version,
            "etcd": _first_line("etcd", "--version"),
            **{f"python {name}": version(name) for name in ("kopf", "kubernetes", "aiohttp", "pydantic")},
        },
    }


def _first_line(program: str, option: str) -> str:
    """Return the version that a program prints first, such as `etcd Version: 3.4.23`."""
    done = subprocess.run([binaries.find(program), option], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].rpartition(" ")[2]


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
