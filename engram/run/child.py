"""One process of a run, started, watched and ended by the supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engram.run.edge import message_in

LOG_TAIL = 64 * 1024
"""Bytes at the end of a log in which a process's last words are looked for."""


class Child:
    """`python -m engram ...` in a process group of its own, its output in a log file, its stdin a lifeline.

    The write end of the child's stdin stays open in this process: when this process ends in any way, the
    child reads end-of-file and ends too (`edge.end_with_parent`). A group of its own keeps the terminal's
    Ctrl-C away from the child: stopping is the supervisor's decision.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        numbered: bool = False,
    ) -> None:
        """`environment` comes on top of our own; `numbered`: each start gets `--attempt N`, N from 1."""
        self.name = name
        self._numbered = numbered
        self._arguments = [sys.executable, "-m", "engram", *arguments]
        self._environment = {**os.environ, **environment}
        self._log = log
        self._offset = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the newest start."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """Where the output of all starts goes."""
        return self._log

    def start(self) -> None:
        """Start it (again)."""
        self._close_lifeline()
        self.starts += 1
        attempt = ["--attempt", str(self.starts)] if self._numbered else []
        with self._log.open("ab") as log:
            self._offset = log.tell()
            self._process = subprocess.Popen(
                [*self._arguments, *attempt],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,
            )

    def poll(self) -> int | None:
        """Return the exit code (negative: minus the signal), None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """True between start and end."""
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to save its state and end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything in its process group at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; None when it still runs after `timeout` seconds."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Kill what is left and free the pipe."""
        if self._process is not None:
            self.kill()
            self._process.wait()
        self._close_lifeline()

    def last_words(self) -> tuple[str, bool]:
        """Return the error sentence of the newest start and whether it failed cleanly (see `message_in`)."""
        return message_in(self.output())

    def output(self) -> str:
        """Return the end of what the newest start wrote."""
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._offset, size - LOG_TAIL))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _close_lifeline(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
