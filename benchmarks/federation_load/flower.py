"""Flower's legacy gRPC server and its client, run by the interpreter of the peers' environment.

    python -m benchmarks.federation_load.flower server PORT PARAMETERS WORKERS ROUNDS
    python -m benchmarks.federation_load.flower client PORT

Both print what they measured as JSON, like server.py and client.py. Nothing of engram is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.federation_load.usage import SocketBytes, peak_mb

SAMPLES = 100


def model_of(parameters: int) -> list[Any]:
    """Return a model of so many float32 numbers, in sixteen tensors as engram's benchmark has it."""
    shares = np.arange(1, 17)
    sizes = parameters * shares // shares.sum()
    sizes[-1] += parameters - sizes.sum()
    draw = np.random.default_rng(parameters)
    return [draw.normal(size=size).astype(np.float32) for size in sizes]


def serve(port: int, parameters: int, workers: int, rounds: int) -> dict[str, Any]:
    """Run the server to the end of the last round."""
    flower = importlib.import_module("flwr.server")
    strategies = importlib.import_module("flwr.server.strategy")
    to_parameters: Callable[..., Any] = importlib.import_module("flwr.common").ndarrays_to_parameters
    seconds: list[float] = []
    marks: list[tuple[float, float]] = []

    class Timed(strategies.FedAvg):  # type: ignore[misc, name-defined]
        """FedAvg that takes the time from a round's start to its sum."""

        def configure_fit(self, *arguments: Any, **named: Any) -> Any:
            """Start the stopwatch."""
            marks.append((time.perf_counter(), time.process_time()))
            return super().configure_fit(*arguments, **named)

        def aggregate_fit(self, *arguments: Any, **named: Any) -> Any:
            """Stop it."""
            result = super().aggregate_fit(*arguments, **named)
            seconds.append(time.perf_counter() - marks[-1][0])
            return result

    flower.start_server(
        server_address=f"127.0.0.1:{port}",
        config=flower.ServerConfig(num_rounds=rounds),
        strategy=Timed(
            fraction_evaluate=0.0,
            min_fit_clients=workers,
            min_available_clients=workers,
            initial_parameters=to_parameters(model_of(parameters)),
        ),
    )
    cpu = [after[1] - before[1] for before, after in pairwise(marks)]
    return {"reason": "complete", "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak_mb()}


def take_part(port: int) -> dict[str, Any]:
    """Be a client that sends the weights back as they came."""
    flower = importlib.import_module("flwr.client")
    carried: list[int] = []
    used: list[float] = []
    sockets = SocketBytes(port)

    class Idle(flower.NumPyClient):  # type: ignore[misc, name-defined]
        """Trains nothing."""

        def fit(self, parameters: Any, config: Any) -> Any:
            """Return the parameters."""
            carried.append(sockets.read())
            used.append(time.process_time())
            return parameters, SAMPLES, {}

    flower.start_client(server_address=f"127.0.0.1:{port}", client=Idle().to_client())
    return {
        "reason": "complete",
        "bytes": [after - before for before, after in pairwise(carried)],
        "cpu_seconds": [after - before for before, after in pairwise(used)],
        "peak_mb": peak_mb(),
    }


def main(arguments: list[str]) -> None:
    """Be what the command line says."""
    numbers = [int(text) for text in arguments[1:]]
    print(json.dumps(serve(*numbers) if arguments[0] == "server" else take_part(*numbers)))


if __name__ == "__main__":
    main(sys.argv[1:])
