"""Free ports that stay ours, so that a killed aggregator comes back on the port its workers know."""

from __future__ import annotations

import errno
import socket
import sys
from types import TracebackType

from engram.errors import ConfigurationError, PortTakenError

LOOPBACK = "127.0.0.1"


class Reservation:
    """A TCP port that no other program is given while the reservation lasts.

    A socket that is bound but does not listen keeps the kernel from handing the port out. On Linux another
    socket with SO_REUSEADDR (as every server sets it) may still bind and listen; elsewhere the reservation
    ends as soon as the number is known.
    """

    def __init__(self, port: int = 0) -> None:
        """`port` 0: any free one. Raises ConfigurationError when a server already listens on it."""
        if port:
            _check_free(port)
        self._socket = _bound(port)
        self.port = int(self._socket.getsockname()[1])
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        raise _unusable(port, error) from error
    return bound


def _check_free(port: int) -> None:
    """Listen once: a bind alone succeeds beside another program's reservation."""
    with _bound(port) as probe:
        try:
            probe.listen(1)
        except OSError as error:
            raise _unusable(port, error) from error


def _unusable(port: int, error: OSError) -> ConfigurationError:
    remedy = "name another port, or leave --port out to use any free one"
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(f"port {port} is taken", field="--port", remedy=remedy)
    return ConfigurationError(f"port {port} cannot be used: {error.strerror}", field="--port", remedy=remedy)
