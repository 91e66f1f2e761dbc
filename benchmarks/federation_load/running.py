"""Starts the processes of a measurement and listens to what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.federation_load.peers import LEGACY, SEDNA
from benchmarks.federation_load.ports import await_listening, free_port
from benchmarks.federation_load.rows import Row, row_of
from benchmarks.federation_load.server import names_of

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300.0
CROWDS = 4
"""Processes that 1,000 workers share."""


def measured(
    parameters: int,
    workers: int,
    rounds: int,
    limit: float,
    *,
    compression: str = "none",
    disk: bool = False,
) -> Row:
    """Run engram with a process each; `disk`: with a checkpoint every round."""
    with tempfile.TemporaryDirectory() as folder, _processes() as started:
        server = _start(
            started, "server", *_texts(parameters, workers, rounds), compression, *([folder] if disk else [])
        )
        port = _line(server)
        clients = [_start(started, "client", port, name, compression) for name in names_of(workers)]
        heard = [_last(client) for client in clients]
        system = "engram with checkpoints" if disk else "engram"
        row = row_of(system, parameters, workers, limit, _last(server), heard)
        return Row(**{**vars(row), "compression": compression})


def crowd(parameters: int, workers: int, rounds: int, limit: float) -> Row:
    """Run engram with so many connections that several workers share a process."""
    with _processes() as started:
        server = _start(started, "server", *_texts(parameters, workers, rounds), "none")
        port, share = _line(server), workers // CROWDS
        crowds = [_start(started, "crowd", port, *_texts(index * share, share)) for index in range(CROWDS)]
        heard = [_last(process) for process in crowds]
        row = row_of("engram", parameters, workers, limit, _last(server), heard)
        joined = max(one["join_seconds"] for one in heard)
        return Row(**{**vars(row), "note": f"all joined in {joined:.1f} s"})


def flower(python: Path, parameters: int, workers: int, rounds: int, limit: float) -> Row:
    """Run Flower's legacy gRPC server with a client process each."""
    with _processes() as started:
        port = free_port()
        arguments = ["server", *_texts(port, parameters, workers, rounds)]
        server = _start(started, "flower", *arguments, python=python)
        await_listening(port)
        clients = [_start(started, "flower", "client", str(port), python=python) for _ in range(workers)]
        said = _last(server)
        return row_of(LEGACY, parameters, workers, limit, said, [_last(c) for c in clients])


def kubeedge(python: Path, parameters: int, workers: int, rounds: int, limit: float) -> Row:
    """Run the aggregator of KubeEdge's Sedna with a client process each, whose reports are answered."""
    with _processes() as started, _controller() as controller:
        port = free_port()
        arguments = ["server", *_texts(port, parameters, workers, rounds)]
        server = _start(started, "kubeedge", *arguments, python=python)
        await_listening(port)
        clients = [
            _start(
                started, "kubeedge", "client", *_texts(port, controller, number, parameters), python=python
            )
            for number in range(workers)
        ]
        heard = [_last(client) for client in clients]
        return row_of(SEDNA, parameters, workers, limit, _last(server), heard)


class _Answering(BaseHTTPRequestHandler):
    """A Local Controller: without one, Sedna's client waits for twelve seconds a round."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """A line for every round and client is nobody's interest."""


@contextmanager
def _controller() -> Iterator[int]:
    """Answer Sedna's clients on a port of their own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _texts(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


@contextmanager
def _processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect processes, and let none outlive the measurement."""
    started: list[subprocess.Popen[str]] = []
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start(
    started: list[subprocess.Popen[str]], module: str, *arguments: str, python: Path | None = None
) -> subprocess.Popen[str]:
    command = [str(python or sys.executable), "-m", f"benchmarks.federation_load.{module}", *arguments]
    quiet = None if python is None else subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=quiet, text=True)
    started.append(process)
    return process


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
