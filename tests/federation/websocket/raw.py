"""Raw connections to a real server, for tests that do what no worker of ours would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from engram.federation.codec import DOWN, Decoder, Encoder
from engram.federation.messages import Down, Hello, Message, Train, Update
from engram.federation.outcome import Outcome
from engram.federation.versions import PROTOCOL
from engram.spec.tokens import worker_token
from tests.federation.websocket.scripted import work

KEY = b"a key of the tests"
A, B = "trainworker-edge-0", "trainworker-edge-1"


class Peer:
    """A raw connection with the codec of a worker."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._encoder, self._decoder = Encoder(), Decoder[Down](DOWN)

    async def say(self, message: Message) -> None:
        await self.socket.send(self._encoder.encode(message).join())

    async def hear(self) -> Down:
        async with asyncio.timeout(10):
            return self._decoder.decode(await self.socket.recv(decode=False))

    async def closed(self) -> int | None:
        """Return the code that the server closes the connection with."""
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.socket.recv()
                except ConnectionClosed as error:
                    return None if error.rcvd is None else error.rcvd.code


class Server:
    """A server on a free port and what it ended with."""

    def __init__(self, aggregator: Any) -> None:
        self.aggregator = aggregator
        self.stop = asyncio.Event()
        self.port = 0
        self.serving: asyncio.Task[Outcome]
        self._ready = asyncio.Event()

    def listening(self, port: int) -> None:
        self.port = port
        self._ready.set()

    async def ready(self) -> None:
        await self._ready.wait()

    @asynccontextmanager
    async def peer(
        self, worker: str, token: str | None = None, path: str = "/v1/federation", hello: bool = True
    ) -> AsyncIterator[Peer]:
        token = worker_token(KEY, "uid", worker) if token is None else token
        async with connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers={"Authorization": f"Bearer {token}", "Engram-Worker": worker},
            subprotocols=[Subprotocol("engram.v1")],
            compression=None,
            max_size=None,
            proxy=None,
        ) as socket:
            peer = Peer(socket)
            if hello:
                await peer.say(hello_of(worker))
            yield peer


def hello_of(worker: str, **changes: Any) -> Hello:
    values: dict[str, Any] = {
        "worker": worker,
        "attempt": 0,
        "protocol": PROTOCOL,
        "job_digest": "job",
        "split_digest": "split",
        "samples": 100,
        **changes,
    }
    return Hello(**values)


def update_of(train: Train, samples: int = 10) -> Update:
    weights = {name: np.array(array) for name, array in train.weights.items()}
    return Update(train.task, train.round, samples, weights)


Check = Callable[[Server], Awaitable[None]]
WithServer = Callable[..., tuple[Outcome, Any]]


def work_at(port: int, name: str, learner: Any, **changes: Any) -> str:
    """Work for the aggregator on a port of loopback, with the token of `name`; return the run's end."""
    values = {"worker": name, "token": worker_token(KEY, "uid", name), "attempt": 1, **changes}
    return work(learner, f"127.0.0.1:{port}", **values)
