"""What a process costs, asked of the kernel: memory, and bytes at its sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

_ACKED_AND_RECEIVED = struct.Struct("=2Q")
_OFFSET = 120
"""Of tcpi_bytes_acked in Linux's struct tcp_info; tcpi_bytes_received follows."""


def peak_mb(pid: int | str = "self") -> float:
    """Return the most resident memory that a process has had, in MB (10^6 bytes).

    Not of getrusage: a child inherits what its parent had.
    """
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/{pid}/status has no VmHWM")


class SocketBytes:
    """The bytes that this process's TCP connections to a port have carried both ways: payloads of TCP, so
    WebSocket frames, HTTP/2 and TLS are in it, packet headers are not.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[str] = []
        self._sockets: list[socket.socket] = []

    def read(self) -> int:
        """Return them. Connections are looked for where files were opened or closed since: a worker asks in
        every round, and a search takes a tenth of a millisecond of the time that is measured.
        """
        if self._open != os.listdir("/proc/self/fd"):
            self._search()
            self._open = os.listdir("/proc/self/fd")
        total = 0
        for item in self._sockets:
            info = item.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            total += sum(_ACKED_AND_RECEIVED.unpack_from(info, _OFFSET))
        return total

    def close(self) -> None:
        """Let the connections go that were found."""
        while self._sockets:
            self._sockets.pop().close()
        self._open = []

    def _search(self) -> None:
        self.close()
        # All are looked at before one is opened anew, whose number may be among the names.
        found: dict[str, int] = {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                found[os.readlink(f"/proc/self/fd/{name}")] = int(name)
        for number in [number for link, number in found.items() if link.startswith("socket:")]:
            try:
                copy = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            if self._wanted(copy):
                self._sockets.append(copy)
            else:
                copy.close()

    def _wanted(self, found: socket.socket) -> bool:
        try:
            return found.family != socket.AF_UNIX and bool(found.getpeername()[1] == self._port)
        except (OSError, IndexError):  # not connected, or not TCP
            return False
