"""The real operator as a process of this machine: started, killed, and asked of the kernel what it costs."""

from __future__ import annotations

import os
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from engram.spec.names import HEALTH_PATH, METRICS_PATH
from tests.cluster.processes import Processes

NAME = "engram-operator"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class OperatorProcess:
    """`python -m engram_operator`, outside the cluster, with its settings' defaults.

    Args:
        processes: where it is recorded, so that it ends with its cluster.
        kubeconfig: who it is.
        port: of /healthz and /metrics.
        namespaces: that it watches; empty: all.
    """

    processes: Processes
    kubeconfig: Path
    port: int
    namespaces: tuple[str, ...] = ()
    _peak: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it; what it writes is appended to the cluster's logs."""
        options = [f"--kubeconfig={self.kubeconfig}", f"--health-port={self.port}"]
        if self.namespaces:
            options.append(f"--namespaces={','.join(self.namespaces)}")
        self.processes.start(NAME, [sys.executable, "-m", "engram_operator", *options])

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.peak()
        self.processes.stop(NAME)

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, when it does not run."""
        self.processes.check(NAME)

    def peak(self) -> int:
        """Return the most resident memory, in bytes, that any process of it has had."""
        if self._running is not None:
            self._peak = max(self._peak, self._memory("VmHWM"))
        return self._peak

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        return self._memory("VmRSS")

    def cpu_seconds(self) -> float:
        """Return the CPU time that the running process has taken so far."""
        self.check()
        text = Path(f"/proc/{self._running}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def probe(self) -> None:
        """Ask for its health, as the kubelet does. Raises OSError when it is not well."""
        self._get(HEALTH_PATH)

    def scrape(self) -> int:
        """Read its metrics, as Prometheus does; return their size in bytes."""
        return len(self._get(METRICS_PATH))

    @property
    def _running(self) -> int | None:
        return self.processes.pid(NAME)

    def _memory(self, field_name: str) -> int:
        self.check()
        for line in Path(f"/proc/{self._running}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field_name}:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the kernel tells no {field_name} of the operator")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            found: bytes = answer.read()
        return found
