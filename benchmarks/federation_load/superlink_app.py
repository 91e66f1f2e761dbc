"""Flower's newer way: a ServerApp and a ClientApp, which its SuperLink and its SuperNodes start as processes.

Nothing of engram is imported here. The figures go to the file that the run's configuration names.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.federation_load.flower import SAMPLES, model_of
from benchmarks.federation_load.usage import peak_mb

TICKS = os.sysconf("SC_CLK_TCK")


def server_app() -> Any:
    """Return the app that runs the rounds and takes their time."""
    app = importlib.import_module("flwr.serverapp").ServerApp()
    records = importlib.import_module("flwr.app")
    strategies = importlib.import_module("flwr.serverapp.strategy")
    seconds: list[float] = []
    marks: list[float] = []
    begun: list[float] = []

    class Timed(strategies.FedAvg):  # type: ignore[misc, name-defined]
        """FedAvg that takes the time from a round's start to its sum."""

        superlink = 0

        def configure_train(self, *arguments: Any, **named: Any) -> Iterable[Any]:
            """Start the stopwatch."""
            marks.append(_cpu_seconds(self.superlink) + time.process_time())
            begun.append(time.perf_counter())
            messages: Iterable[Any] = super().configure_train(*arguments, **named)
            return messages

        def aggregate_train(self, *arguments: Any, **named: Any) -> Any:
            """Stop it."""
            result = super().aggregate_train(*arguments, **named)
            seconds.append(time.perf_counter() - begun[-1])
            return result

    @app.main()  # type: ignore[untyped-decorator]
    def run(grid: Any, context: Any) -> None:
        given = context.run_config
        workers = int(given["workers"])
        strategy = Timed(fraction_evaluate=0.0, min_train_nodes=workers, min_available_nodes=workers)
        strategy.superlink = int(given["superlink"])
        arrays = records.ArrayRecord(model_of(int(given["parameters"])))
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(given["rounds"]))
        said = {
            "reason": "complete",
            "seconds": seconds,
            "cpu_seconds": [after - before for before, after in pairwise(marks)],
            "peak_mb": peak_mb() + peak_mb(strategy.superlink),
        }
        whole = Path(f"{given['out']}.new")
        whole.write_text(json.dumps(said), encoding="ascii")
        whole.replace(given["out"])

    return app


def client_app() -> Any:
    """Return the app that sends the weights back as they came."""
    app = importlib.import_module("flwr.clientapp").ClientApp()
    records = importlib.import_module("flwr.app")

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Any, context: Any) -> Any:
        metrics = records.MetricRecord({"num-examples": SAMPLES})
        content = records.RecordDict({"arrays": message.content["arrays"], "metrics": metrics})
        return records.Message(content=content, reply_to=message)

    return app


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS
