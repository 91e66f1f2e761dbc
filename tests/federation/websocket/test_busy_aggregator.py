"""An aggregator that is busy for long reads nobody: its workers wait, and keep their connections."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engram.federation import settings as settings_module
from engram.federation.messages import Tensors, Train, Update
from engram.federation.tokens import authenticator
from engram.federation.websocket import client, server, wire
from engram.federation.websocket.server import serve
from engram.federation.websocket.stream import ClientStream
from tests.federation.websocket.raw import KEY, work_at

MakeFederation = Callable[..., Any]
LARGE = np.zeros(60_000, np.float32)
"""More than the kernel takes in for somebody who does not read, and less than needs credit."""
PINGS = 20
"""So many of a worker's come to nothing, in two seconds: five times as many as would end a connection."""


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[None]:
    """Make workers impatient, and tell of each ping of theirs."""
    monkeypatch.setattr(client, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(server, "REASSURE_SECONDS", 0.02)
    monkeypatch.setattr(wire, "DEAD_SECONDS", 1)
    sent: queue.SimpleQueue[None] = queue.SimpleQueue()
    ping = ClientStream.ping

    async def counted(self: ClientStream, *data: Any) -> Any:
        sent.put(None)
        return await ping(self, *data)

    monkeypatch.setattr(ClientStream, "ping", counted)
    return sent


def test_workers_of_a_busy_aggregator_stay_connected_and_are_not_called_lost(
    make_federation: MakeFederation, pings: queue.SimpleQueue[None]
) -> None:
    """One of the two is read up to its heartbeats, the other one's update waits at the gate."""
    federation = make_federation(
        workers=2, rounds=(1,), heartbeat_seconds=0.1, staging_bytes=settings_module.LARGEST_WHOLE
    )
    aggregator = federation.aggregator()
    busy, go_on = threading.Event(), threading.Event()

    def check(task: int, weights: Tensors, info: Tensors) -> None:
        busy.set()
        assert go_on.wait(20)

    federation.head.check_info = check

    async def main() -> Any:
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve(
                aggregator,
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=asyncio.Event(),
                listening=listening.set_result,
            )
        )
        port = await listening
        working = [
            asyncio.create_task(asyncio.to_thread(work, name, learner, port))
            for name, learner in federation.workers().items()
        ]
        try:
            assert await asyncio.to_thread(busy.wait, 20)
            for _ in range(PINGS * len(working)):
                await asyncio.to_thread(pings.get, True, 20)
        finally:
            go_on.set()
        assert await asyncio.gather(*working) == ["complete", "complete"]
        return await serving

    history = asyncio.run(main()).history
    assert history.faults.reconnects == {}
    assert history.faults.rejected == {}
    assert [row.degraded for row in history.rounds] == [False]
    assert not [event for event in federation.observer.events if "disconnected" in event[1:]]


def work(name: str, learner: Any, port: int) -> str:
    train = learner.train

    def at_length(order: Train, progress: Any) -> Update:
        update: Update = train(order, progress)
        return replace(update, info={"large": LARGE})

    learner.train = at_length
    return work_at(port, name, learner)
