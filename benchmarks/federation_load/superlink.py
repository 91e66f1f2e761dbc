"""Starts Flower's SuperLink with a SuperNode a worker, and the apps of superlink_app on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.federation_load.peers import SUPERLINK
from benchmarks.federation_load.ports import await_listening, free_port
from benchmarks.federation_load.rows import Row, row_of
from benchmarks.federation_load.usage import peak_mb

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 240.0
POLL_SECONDS = 0.5

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "idle"
version = "1.0.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "engram"
[tool.flwr.app.components]
serverapp = "idle.server:app"
clientapp = "idle.client:app"
[tool.flwr.app.config]
parameters = {parameters}
workers = {workers}
rounds = {rounds}
superlink = {superlink}
out = "{out}"
"""
CONNECTION = """
[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
"""
APP = "from benchmarks.federation_load.superlink_app import {role}_app\n\napp = {role}_app()\n"


def superlink(python: Path, parameters: int, workers: int, rounds: int, limit: float) -> Row:
    """Run Flower's SuperLink; RuntimeError when it does not come to its end in time."""
    with tempfile.TemporaryDirectory() as name, _processes(Path(name), python.absolute().parent) as start:
        folder, out = Path(name), Path(name) / "said.json"
        port = free_port()
        server = start(
            "flower-superlink", "--insecure", f"--port={port}", "--disable-runtime-dependency-installation"
        )
        await_listening(port)
        nodes = [
            start("flower-supernode", "--insecure", f"--superlink=127.0.0.1:{port}", f"--port={free_port()}")
            for _ in range(workers)
        ]
        values = {"parameters": parameters, "workers": workers, "rounds": rounds, "superlink": server.pid}
        _write_app(folder, PROJECT.format(**values, out=out))
        (folder / "config.toml").write_text(CONNECTION.format(port=port), encoding="ascii")
        submitted = start("flwr", "run", str(folder / "idle"))
        said = _await_figures(out, server, submitted)
        heard = [{"bytes": [], "peak_mb": peak_mb(node.pid)} for node in nodes]
        return row_of(SUPERLINK, parameters, workers, limit, said, heard)


def _write_app(folder: Path, project: str) -> None:
    package = folder / "idle" / "idle"
    package.mkdir(parents=True)
    (folder / "idle" / "pyproject.toml").write_text(project, encoding="ascii")
    (package / "__init__.py").touch()
    for role in ("server", "client"):
        (package / f"{role}.py").write_text(APP.format(role=role), encoding="ascii")


def _await_figures(
    out: Path, server: subprocess.Popen[bytes], submitted: subprocess.Popen[bytes]
) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_SECONDS
    while not out.exists():
        if server.poll() is not None or submitted.poll() or time.monotonic() > end:
            raise RuntimeError("Flower's SuperLink did not come to the end of its rounds")
        time.sleep(POLL_SECONDS)
    said: dict[str, Any] = json.loads(out.read_text(encoding="ascii"))
    return said


@contextmanager
def _processes(folder: Path, binaries: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give what starts a command of Flower's; at the end all of them, and what they started, are ended."""
    started: list[subprocess.Popen[bytes]] = []
    surroundings = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
    }

    def start(command: str, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [str(binaries / command), *arguments],
            cwd=folder,
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
