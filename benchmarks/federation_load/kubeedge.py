"""KubeEdge Sedna's aggregator and its client, run by the interpreter that has the library (docs/sedna.md).

    python -m benchmarks.federation_load.kubeedge server PORT PARAMETERS WORKERS ROUNDS
    python -m benchmarks.federation_load.kubeedge client PORT CONTROLLER NUMBER PARAMETERS

Both print what they measured as JSON, like server.py and client.py. Nothing of engram is imported here. The
library reads its environment when it is imported, so that comes late.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

from benchmarks.federation_load.flower import SAMPLES, model_of
from benchmarks.federation_load.usage import SocketBytes, peak_mb


def serve(port: int, parameters: int, workers: int, rounds: int) -> dict[str, Any]:
    """Run the aggregator to the end of the last round.

    A round is from one sum to the next: the broadcast begins at once, and the clients train nothing.
    """
    os.environ.update(AGG_BIND_IP="127.0.0.1", AGG_BIND_PORT=str(port))
    rule: Any = importlib.import_module("sedna.algorithms.aggregation").FedAvg
    marks: list[tuple[float, float]] = []
    aggregate = rule.aggregate

    def timed(self: Any, clients: Any) -> Any:
        result = aggregate(self, clients)
        marks.append((time.perf_counter(), time.process_time()))
        return result

    rule.aggregate = timed
    service = importlib.import_module("sedna.service.server")
    server = service.AggregationServer("FedAvg", exit_round=rounds, participants_count=workers)
    server.WAIT_TIME = 1  # how often it looks whether it is done; 15 s otherwise
    server.start()
    return {
        "reason": "complete",
        "seconds": [after[0] - before[0] for before, after in pairwise(marks)],
        "cpu_seconds": [after[1] - before[1] for before, after in pairwise(marks)],
        "peak_mb": peak_mb(),
    }


def take_part(port: int, controller: int, number: int, parameters: int) -> dict[str, Any]:
    """Be a client that sends the weights back as they came."""
    os.environ.update(
        AGG_IP="127.0.0.1",
        AGG_PORT=str(port),
        BACKEND_TYPE="UNKNOWN",
        JOB_NAME="job",
        LC_SERVER=f"http://127.0.0.1:{controller}",
        MODEL_URL=os.path.join(tempfile.gettempdir(), f"sedna-{os.getpid()}"),
        WORKER_NAME=f"w{number}",
    )
    asyncio.set_event_loop(asyncio.new_event_loop())
    learning = importlib.import_module("sedna.core.federated_learning")
    carried: list[int] = []
    used: list[float] = []
    sockets = SocketBytes(port)

    class Idle:
        """Trains nothing."""

        def __init__(self) -> None:
            self.weights: Any = [tensor.tolist() for tensor in model_of(parameters)]

        def train(self, train_data: Any, valid_data: Any = None, **options: Any) -> Any:
            """Note what the round before took."""
            carried.append(sockets.read())
            used.append(time.process_time())
            return {"loss": [0.0]}

        def get_weights(self) -> Any:
            """Return the weights."""
            return self.weights

        def set_weights(self, weights: Any) -> None:
            """Keep the weights."""
            self.weights = weights

        def save(self, model_url: str = "") -> str:
            """Keep nothing."""
            return "model.npz"

        def model_info(self, model: str, relpath: Any = None, result: Any = None) -> Any:
            """Describe what was kept."""
            return [{"format": "npz", "url": model, "metrics": result}]

    job = learning.FederatedLearning(estimator=Idle(), aggregation="FedAvg")
    # The library wraps an estimator of no framework in a backend without get_weights.
    job.estimator = job.estimator.estimator
    job.train(train_data=list(range(SAMPLES)))
    return {
        "reason": "complete",
        "bytes": [after - before for before, after in pairwise(carried)],
        "cpu_seconds": [after - before for before, after in pairwise(used)],
        "peak_mb": peak_mb(),
    }


def main(arguments: list[str]) -> None:
    """Be what the command line says."""
    numbers = [int(text) for text in arguments[1:]]
    print(json.dumps(serve(*numbers) if arguments[0] == "server" else take_part(*numbers)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
