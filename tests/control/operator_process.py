"""The operator as a process of its own, as `python -m engram_operator` starts it on a laptop."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.ports import free_port
from tests.cluster.waiting import NotYet, until

START_SECONDS = 120.0
"""Within which it must serve; it takes two where the machine is not busy."""


class OperatorProcess:
    """A running operator.

    Args:
        kubeconfig: whose cluster and account it uses.
        arguments: of its command line, beside the kubeconfig and the port.
        log: file that its log is added to.
    """

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self.log = log
        self.port = free_port()
        command = [sys.executable, "-m", "engram_operator", "--kubeconfig", str(kubeconfig)]
        with log.open("a") as out:
            self.process = subprocess.Popen(
                [*command, "--health-port", str(self.port), *arguments], stdout=out, stderr=out
            )
        try:
            until(self._healthy, "the operator's /healthz", seconds=START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def get(self, path: str) -> str:
        """Return what its server says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def memory(self) -> float:
        """Return its resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as Kubernetes does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def _healthy(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator ended: {self.log.read_text()[-2000:]}")
        try:
            return self.get("/healthz") == "ok\n"
        except (urllib.error.URLError, OSError) as error:
            raise NotYet(str(error)) from None


@contextlib.contextmanager
def operator(kubeconfig: Path, log: Path, *arguments: str) -> Iterator[OperatorProcess]:
    """Run an operator while the block runs."""
    found = OperatorProcess(kubeconfig, log, *arguments)
    try:
        yield found
    finally:
        found.kill()
