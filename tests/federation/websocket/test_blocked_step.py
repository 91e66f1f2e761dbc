"""A training step that blocks for long, with and without the interpreter's lock, costs no connection."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from engram.federation.history import WorkerState
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from tests.federation.websocket.raw import KEY, A, B, Server

MakeFederation = Callable[..., Any]


class Watched:
    """What became of two workers of which A's step released the lock, and B's held it."""

    def __init__(self, federation: Any, seconds: float) -> None:
        self.federation, self.seconds = federation, seconds
        self.shown: list[tuple[float, str, WorkerState]] = []
        """Changes of the workers' states, with the seconds since the first order."""
        self.beats: list[float] = []
        """When the worker that may say so said that it trains."""

    def run(self) -> Any:
        return asyncio.run(self._run())

    async def _run(self) -> Any:
        server = Server(self.federation.aggregator())
        self._watch(server.aggregator)
        server.serving = asyncio.create_task(
            serve(
                server.aggregator,
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=server.stop,
                listening=server.listening,
            )
        )
        await server.ready()
        module = "tests.federation.websocket.blocked_worker"
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, str(server.port), name, how, str(self.seconds))
            )
            for name, how in ((A, "released"), (B, "held"))
        ]
        try:
            async with asyncio.timeout(self.seconds + 60):
                return await server.serving
        finally:
            server.stop.set()
            for process in processes:
                if server.aggregator.outcome is None:
                    process.kill()
                await process.wait()

    def _watch(self, aggregator: Any) -> None:
        """Write down when states change and who beats."""
        observer, start = self.federation.observer, time.monotonic()
        changed, receive = observer.worker_changed, aggregator.receive

        def on_change(worker: str, state: WorkerState) -> None:
            self.shown.append((time.monotonic() - start, worker, state))
            changed(worker, state)

        def on_message(worker: str, message: Any, now: float) -> Any:
            if worker == A and type(message).__name__ == "Heartbeat":
                self.beats.append(now)
            return receive(worker, message, now)

        observer.worker_changed, aggregator.receive = on_change, on_message

    def states_before_the_end(self, worker: str) -> list[WorkerState]:
        """Return the states of a worker up to the first that belongs to its leaving."""
        states = [state for _, name, state in self.shown if name == worker]
        return states[: states.index("finished")] if "finished" in states else states


def check(watched: Watched, heartbeat_seconds: float) -> None:
    outcome = watched.run()
    assert outcome.reason == "complete", outcome.message
    # Both updates of the blocked round count, sent over the connections that were there from the start.
    assert outcome.history.faults.reconnects == {}
    assert outcome.history.faults.rejected == {}
    row = outcome.history.rounds[0]
    assert {name: part.outcome for name, part in row.workers.items()} == {A: "accepted", B: "accepted"}
    assert sum(row.seconds.values()) >= watched.seconds
    # With the lock released heartbeats went on; with it held the worker was silent, and showed as it was.
    assert len(watched.beats) >= watched.seconds / heartbeat_seconds / 2
    assert "disconnected" not in watched.states_before_the_end(A)[:-1]
    silent = watched.states_before_the_end(B)
    assert "connected" in silent[silent.index("disconnected") :]


def test_a_blocked_step_keeps_its_connection_and_its_update_counts(make_federation: MakeFederation) -> None:
    settings = {"workers": 2, "rounds": (2,), "tick_seconds": 0.05, "heartbeat_seconds": 0.7}
    check(Watched(make_federation(**settings), seconds=5.0), 0.7)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes_with_the_settings_of_a_job(make_federation: MakeFederation) -> None:
    check(Watched(make_federation(workers=2, rounds=(2,)), seconds=120.0), 10.0)
