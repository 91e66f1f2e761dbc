"""What a benchmark asks of the kernel."""

from __future__ import annotations

import socket

from benchmarks.federation_load.usage import SocketBytes, peak_mb


def test_bytes_of_every_connection_to_the_port_and_of_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        counted = SocketBytes(listener.getsockname()[1])
        assert counted.read() == 0
        (one, far), (stranger, beyond) = _connected(listener), _connected(other)
        with one, far, stranger, beyond:
            _answered(one, far, 1000)
            _answered(stranger, beyond, 500)
            # The answer is a byte; so is the SYN that was acknowledged.
            assert counted.read() == 1002
            assert counted.read() == 1002
            two, behind = _connected(listener)
            with two, behind:
                _answered(two, behind, 300)
                assert counted.read() == 1002 + 302
            counted.close()
            assert counted.read() == 1002
            _answered(one, far, 7)
            assert counted.read() == 1010
        counted.close()


def test_peak_memory_of_a_process_of_today() -> None:
    assert 1 < peak_mb() < 10_000


def _connected(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(server.getsockname())
    return client, server.accept()[0]


def _answered(client: socket.socket, server: socket.socket, size: int) -> None:
    """Have so many bytes go there and one back, which acknowledges them."""
    client.sendall(bytes(size))
    left = size
    while left:
        left -= len(server.recv(left))
    server.sendall(b"!")
    assert client.recv(1) == b"!"
