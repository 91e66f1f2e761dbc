"""`engram aggregator`, `worker` and `reporter` as pods start them: by environment, with mounted files."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from engram.spec.names import CredentialsKey, Environment, SpecKey
from engram.spec.summary import FinalSummary
from engram.spec.tokens import worker_token
from tests.cluster.ports import free_port
from tests.federation.certificates import NAME, Authority

KEY = b"0123456789abcdef0123456789abcdef"
UID = "11111111-2222-3333-4444-555555555555"
PATIENCE = 180.0
"""Seconds after which a process that should have ended is a failure, on a busy machine too."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition of a process that announces itself in no other way."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.02)


class Process:
    """One pod: its process, its log, and what it left for the kubelet."""

    def __init__(self, name: str, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.termination_log = folder / f"{name}.termination"
        self._log = folder / f"{name}.log"
        self.termination_log.write_text("")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engram", *words],
                cwd=folder,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "OMP_NUM_THREADS": "1",
                    Environment.ENGRAM_TERMINATION_LOG: str(self.termination_log),
                    **environment,
                },
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Return what it wrote so far, on both streams."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def last_word(self) -> str:
        """Return its termination message."""
        return self.termination_log.read_text(encoding="utf-8")

    @property
    def summary(self) -> FinalSummary:
        """Return the final summary that the aggregator left."""
        found = FinalSummary.decode(self.last_word)
        assert found is not None, self.last_word
        return found

    def wait_for(self, text: str) -> None:
        """Wait until its log holds `text`."""
        wait_until(lambda: text in self.output or not self.running)
        assert text in self.output, self.output

    def terminate(self) -> int:
        """Send SIGTERM, as the kubelet does; return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.end()

    def pause(self) -> None:
        """Let it stand still, so that the run cannot go on without it."""
        self._process.send_signal(signal.SIGSTOP)

    def proceed(self) -> None:
        """Let it go on after `pause`."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a node does that loses its power."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(PATIENCE)


class Pods:
    """A job's mounted files, and the processes of its pods."""

    def __init__(self, folder: Path, document: dict[str, Any], *, tls: bool = True) -> None:
        self.folder, self.document = folder, document
        self.spec = folder / "spec"
        self.credentials = folder / "credentials"
        self.checkpoint = folder / "checkpoint"
        for directory in (self.spec, self.credentials):
            directory.mkdir()
        self.write_job()
        (self.credentials / CredentialsKey.KEY).write_text(KEY.hex())
        self.authority = Authority(self.credentials)
        self.tls = self.authority.issue() if tls else None
        self.port = free_port()
        self.status_port = free_port()
        (self.spec / SpecKey.ENDPOINTS).write_text(f"127.0.0.1:{self.port}\n")
        self._started: list[Process] = []

    def write_job(self) -> None:
        """Write the job file as the operator does, in place of an older one."""
        document = {**self.document, "metadata": {**self.document["metadata"], "uid": UID}}
        new = self.spec / "new"
        new.write_text(yaml.safe_dump(document), encoding="utf-8")
        new.replace(self.spec / SpecKey.JOB)

    def aggregator(self, *options: str, **changes: str) -> Process:
        """Start the aggregator; `changes` go into its environment."""
        environment = {
            "ENGRAM_JOB_FILE": str(self.spec / SpecKey.JOB),
            "ENGRAM_KEY_FILE": str(self.credentials / CredentialsKey.KEY),
            "ENGRAM_CHECKPOINT_DIR": str(self.checkpoint),
            "ENGRAM_JOB_UID": UID,
            "AGG_BIND_IP": "127.0.0.1",
            "AGG_BIND_PORT": str(self.port),
        }
        if self.tls is not None:
            environment |= {
                "ENGRAM_TLS_CERT_FILE": str(self.tls.certificate),
                "ENGRAM_TLS_KEY_FILE": str(self.tls.key),
            }
        words = ("aggregator", "--status-host", "127.0.0.1", "--status-port", str(self.status_port))
        return self._start("aggregator", (*words, *options), {**environment, **changes})

    def worker(self, name: str = "trainworker-edge-0", **changes: str) -> Process:
        """Start a worker; `changes` go into its environment."""
        token = self.credentials / f"{name}.token"
        token.write_text(worker_token(KEY, UID, name))
        environment = {
            "ENGRAM_JOB_FILE": str(self.spec / SpecKey.JOB),
            "ENGRAM_TOKEN_FILE": str(token),
            "ENGRAM_ENDPOINTS_FILE": str(self.spec / SpecKey.ENDPOINTS),
            "WORKER_NAME": name,
        }
        if self.tls is not None:
            environment |= {"ENGRAM_CA_FILE": str(self.authority.ca), "ENGRAM_TLS_NAME": NAME}
        return self._start(name, ("worker",), {**environment, **changes})

    def reporter(self, *options: str, **changes: str) -> Process:
        """Start the reporter of the run; `changes` go into its environment."""
        environment = {
            "ENGRAM_JOB_FILE": str(self.spec / SpecKey.JOB),
            "ENGRAM_REPORT_DIR": str(self.folder / "report"),
        }
        served = f"http://127.0.0.1:{self.status_port}/v1/record"
        return self._start("reporter", ("reporter", "--record", served, *options), {**environment, **changes})

    def status(self, path: str = "/v1/status") -> tuple[int, Any]:
        """Return what the aggregator's read-only port answers; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.status_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    def _start(self, name: str, words: Sequence[str], environment: Mapping[str, str]) -> Process:
        number = sum(process.name.partition(".")[0] == name for process in self._started)
        process = Process(f"{name}.{number}", words, self.folder, environment)
        self._started.append(process)
        return process

    def close(self) -> None:
        """Leave nothing behind, also when a test failed half-way."""
        for process in self._started:
            process.kill()
