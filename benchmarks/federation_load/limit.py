"""What no federation can be faster than on this machine: its loopback, and one weighted sum.

python -m benchmarks.federation_load.limit
"""

from __future__ import annotations

import os
import socket
import statistics
import time

import numpy as np

WRITE = 1 << 20
TIMES, SUMS = 3, 9
DESIGN_BYTES_PER_SECOND = 3.5e9
"""Of the loopback for which the design says what must be reached."""


def loopback_bytes_per_second(size: int = 1 << 29, *, unpaced: bool = False) -> float:
    """Return how fast another process takes bytes off a TCP connection, written a MiB at a time.

    `unpaced`: as engram's large messages go (see `wire.unpace_loopback`), else as the system sends by itself.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            _swallow(listener.getsockname()[1])
            os._exit(0)
        connection, _ = listener.accept()
    with connection:
        if unpaced:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        block, figures = bytes(WRITE), []
        for _ in range(TIMES):
            before = time.perf_counter()
            for _ in range(size // WRITE):
                connection.sendall(block)
            figures.append(size / (time.perf_counter() - before))
    os.waitpid(child, 0)
    return statistics.median(figures)


def _swallow(port: int) -> None:
    room = bytearray(WRITE)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while connection.recv_into(room):
            continue


def weighted_sum_seconds(parameters: int, workers: int) -> float:
    """Return how long numpy takes for the weighted sum of so many float32 models."""
    models = np.ones((workers, parameters), np.float32)
    weights = np.full(workers, 1 / workers, np.float32)
    figures = []
    for _ in range(SUMS + 1):
        before = time.perf_counter()
        weights @ models
        figures.append(time.perf_counter() - before)
    return statistics.median(figures[1:])


def limit_seconds(rate: float, parameters: int, workers: int) -> float:
    """Return the least time of a round: every model goes down and up, and one sum."""
    return bytes_of(parameters, workers) / rate + weighted_sum_seconds(parameters, workers)


def design_limit(limit: float, rate: float, parameters: int, workers: int) -> float:
    """Return what a `limit` of a run at `rate` would be at the design's rate, with the run's sum."""
    size = bytes_of(parameters, workers)
    return limit - size / rate + size / DESIGN_BYTES_PER_SECOND


def bytes_of(parameters: int, workers: int) -> int:
    """Return the bytes of a round: float32 both ways."""
    return 2 * 4 * parameters * workers
