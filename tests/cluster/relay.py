"""A way from the host's loopback into a network namespace: two socat processes over a unix socket.

Unix sockets do not care about network namespaces, so nothing of the host's network is touched: the operator
under test, kubectl and the tests reach a server inside a namespace at 127.0.0.1:PORT.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.binaries import find
from tests.cluster.state import ClusterDirectory


@dataclass(frozen=True)
class Relay:
    """127.0.0.1:`port` on the host leads to `target` (host:port) as seen inside `netns`."""

    directory: ClusterDirectory
    name: str
    port: int
    netns: str
    target: str

    def start(self) -> None:
        """Start both halves; each connection is dialled when it comes, so the target may start later."""
        processes, socket, socat = self.directory.processes(), self._socket, find("socat")
        processes.start(
            f"{self.name}-inside",
            [socat, f"UNIX-LISTEN:{socket},fork,unlink-early,mode=600", f"TCP:{self.target}"],
            netns=self.netns,
        )
        processes.start(
            f"{self.name}-host",
            [
                socat,
                f"TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,backlog=128",
                f"UNIX-CONNECT:{socket}",
            ],
        )

    def stop(self) -> None:
        """End both halves with the connections they carry."""
        processes = self.directory.processes()
        for half in ("host", "inside"):
            processes.stop(f"{self.name}-{half}")

    @property
    def _socket(self) -> str:
        """Path of the unix socket."""
        return str(self.directory.run / f"{self.name}.sock")
