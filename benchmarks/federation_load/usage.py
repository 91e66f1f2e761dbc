"""What a process costs, asked of the kernel: memory, and bytes at its sockets."""

from __future__ import annotations

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


def socket_bytes(port: int) -> int:
    """Return the bytes that this process's TCP connections to `port` have carried both ways: payloads of TCP,
    so WebSocket frames, HTTP/2 and TLS are in it, packet headers are not.
    """
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                if copy.family != socket.AF_UNIX and copy.getpeername()[1] == port:
                    info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += sum(_ACKED_AND_RECEIVED.unpack_from(info, _OFFSET))
        except OSError:  # not a socket any more, not connected, or not TCP
            continue
    return total
