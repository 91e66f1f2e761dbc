"""Shared by the tests of the local runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PATIENCE = 180.0
"""Seconds after which a process that should have ended is a failure, on a busy machine too."""


@pytest.fixture
def document() -> dict[str, Any]:
    """A small valid job file as plain data."""
    return {
        "apiVersion": "engram.dev/v1alpha1",
        "kind": "FederatedIncrementalJob",
        "metadata": {"name": "small"},
        "spec": {
            "tasks": {"count": 2, "classesPerTask": 2},
            "model": {"name": "cnn", "parameters": {"channels": [4], "dense": 8}},
            "training": {"roundsPerTask": 2, "localSteps": 2, "batchSize": 8},
            "algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": 4}},
            "workers": [{"name": "edge", "replicas": 2}],
        },
    }


@pytest.fixture
def job_file(tmp_path: Path, document: dict[str, Any]) -> Path:
    """The same as a file."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


class Command:
    """`engram ...` as a user starts it, in `folder`, with its stdout read line by line."""

    def __init__(self, folder: Path, *arguments: str, before: Callable[[], None] | None = None) -> None:
        self.lines: list[str] = []
        self._errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engram", *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                preexec_fn=before,
            )
        # A hang must fail the test that caused it, and leave nothing running.
        self._watchdog = threading.Timer(PATIENCE, self.process.kill)
        self._watchdog.start()

    def wait_for(self, beginning: str) -> str:
        """Read stdout up to a line that begins so, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return self.lines[-1]
        raise AssertionError(f"no line began with {beginning!r}: {self.lines} {self.errors}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Read the rest, wait, and return the exit code."""
        assert self.process.stdout is not None
        self.lines += [line.rstrip("\n") for line in self.process.stdout]
        code = self.process.wait()
        self.close()
        return code

    @property
    def errors(self) -> str:
        """What it wrote on stderr so far."""
        return self._errors.read_text(encoding="utf-8")

    def close(self) -> None:
        """Leave nothing behind, also when a test failed half-way."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def engram(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start `engram` in the test's folder."""
    started: list[Command] = []

    def start(*arguments: str, before: Callable[[], None] | None = None) -> Command:
        started.append(Command(tmp_path, *arguments, before=before))
        return started[-1]

    yield start
    for command in started:
        command.close()


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[str], list[int]]:
    """Return a function: word -> pids of the processes with that word that work in this test's folder."""

    def find(word: str) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_text(encoding="utf-8").split("\0")
                folder = path.with_name("cwd").readlink()
            except OSError:
                continue
            if word in words and folder == tmp_path:
                found.append(int(path.parent.name))
        return sorted(found)

    return find
