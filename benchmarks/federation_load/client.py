"""A worker of a measurement, in a process of its own.

    python -m benchmarks.federation_load.client PORT WORKER COMPRESSION

Prints what it measured, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from itertools import pairwise

from benchmarks.federation_load.roles import IdleWorker
from benchmarks.federation_load.server import TOKEN
from benchmarks.federation_load.usage import SocketBytes, peak_mb
from engram.federation.compression.arrays import method_of
from engram.federation.compression.packer import Packer
from engram.federation.compression.residuals import MemoryResiduals
from engram.federation.websocket.client import run_worker
from engram.spec.training import Aggregation


def main(arguments: list[str]) -> None:
    """Take part in a run to its end."""
    port, worker, compression = int(arguments[0]), arguments[1], arguments[2]
    carried: list[int] = []
    used: list[float] = []
    sockets = SocketBytes(port)

    def note() -> None:
        carried.append(sockets.read())
        used.append(time.process_time())

    method = None if compression == "none" else method_of(compression, Aggregation().topk_share)
    reason = run_worker(
        IdleWorker(note, moves=method is not None),
        worker=worker,
        job_digest="benchmark",
        endpoints=[f"127.0.0.1:{port}"],
        token=TOKEN,
        attempt=0,
        orphan_seconds=60.0,
        stop=threading.Event(),
        packer=None if method is None else Packer(method, MemoryResiduals()),
    )
    by_round = [after - before for before, after in pairwise(carried)]
    cpu_by_round = [after - before for before, after in pairwise(used)]
    said = {"reason": reason, "bytes": by_round, "cpu_seconds": cpu_by_round, "peak_mb": peak_mb()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1:])
