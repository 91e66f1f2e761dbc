"""An aggregator written out by hand, one script a connection, and a worker that talks to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as listen
from websockets.typing import Subprotocol

from engram.federation.codec import UP, Decoder, Encoder
from engram.federation.messages import Down, Heartbeat, Up, Welcome
from engram.federation.websocket.client import run_worker

A = "trainworker-edge-0"
Script = Callable[["Talk"], None]


class Talk:
    """The aggregator's side of one connection, written out by hand."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self._encoder, self._decoder = Encoder(), Decoder[Up](UP)

    def say(self, message: Down) -> None:
        self.connection.send(self._encoder.encode(message).join())

    def hear(self) -> Up:
        """Return the next message that is no heartbeat: those come whenever they are due."""
        while isinstance(message := self.hear_any(), Heartbeat):
            pass
        return message

    def hear_any(self) -> Up:
        return self._decoder.decode(self.connection.recv(timeout=10, decode=False))

    def cut(self) -> None:
        """Break the connection without a word."""
        self.connection.socket.shutdown(socket.SHUT_RDWR)


@contextmanager
def aggregator(*scripts: Script) -> Iterator[str]:
    """Serve connection after connection with the next script each; check that every script ran to its end."""
    remaining, errors = list(scripts), []

    def handle(connection: ServerConnection) -> None:
        script = remaining.pop(0)
        try:
            script(Talk(connection))
        except BaseException as error:
            errors.append(error)
            raise

    with listening(handle, compression=None, ping_interval=None) as url:
        yield url
    assert not errors
    assert not remaining


@contextmanager
def listening(handle: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    """Serve every connection with `handle`, in a thread; yield the URL."""
    subprotocols = [Subprotocol("engram.v1")]
    with listen(handle, "127.0.0.1", 0, subprotocols=subprotocols, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def work(learner: Any, *endpoints: str, **changes: Any) -> str:
    values: dict[str, Any] = {
        "worker": A,
        "job_digest": "job",
        "token": "token",
        "attempt": 2,
        "orphan_seconds": 20.0,
        "stop": threading.Event(),
        **changes,
    }
    return run_worker(learner, endpoints=endpoints, **values)


def welcome(**changes: Any) -> Welcome:
    return Welcome(**{"job_digest": "job", "task": 1, "round": 1, "heartbeat_seconds": 10.0, **changes})
