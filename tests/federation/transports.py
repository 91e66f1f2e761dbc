"""The same run over both transports, with the faults that a test asks for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from engram.errors import EngramError
from engram.federation.aggregator import Aggregator
from engram.federation.checkpoint import CheckpointStore
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket.client import run_worker
from engram.federation.websocket.server import serve
from engram.spec.tokens import worker_token

KEY = b"a key of the tests"
MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]


class Killed(Exception):
    """Stands for SIGKILL: nothing of engram's knows it."""


class FastClock:
    """A clock that runs a thousand times as fast, or stands still, so that no deadline needs a sleep."""

    def __init__(self) -> None:
        self.running = True
        self._stopped_at = 0.0

    def __call__(self) -> float:
        if self.running:
            self._stopped_at = 1e9 + 1000 * time.monotonic()
        return self._stopped_at


class InProcess:
    """Drives a run without sockets; a killed worker or aggregator is a restart of all from the checkpoint."""

    def run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None = None
    ) -> Outcome:
        while True:
            try:
                return run_in_process(
                    federation.aggregator(), learners, stop or (lambda: False), federation.residuals_of
                )
            except Killed:
                for name in learners:
                    learners[name] = revived(federation, learners[name])


class WebSocket:
    """Drives a run over loopback; workers are threads that are started again when they are killed."""

    def __init__(self) -> None:
        self.clock = FastClock()
        self.errors: dict[str, Exception] = {}
        self.reasons: dict[str, str] = {}
        self.drains = 0
        """So many times an aggregator that was stopped is followed by another one."""
        self._stopped = threading.Event()
        self._port = 0
        self._listening = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None = None
    ) -> Outcome:
        return asyncio.run(self._run(federation, learners, stop))

    async def _run(
        self, federation: Any, learners: dict[str, Any], stop: Callable[[], bool] | None
    ) -> Outcome:
        started: set[str] = set()
        stopping = asyncio.Event()
        try:
            while True:
                serving = asyncio.create_task(self._serve(federation.aggregator(), stopping))
                try:
                    while not serving.done():
                        for name in [name for name in learners if name not in started]:
                            started.add(name)
                            self._start(federation, name, learners)
                        if stop is not None and stop():
                            stopping.set()
                        await asyncio.wait({serving}, timeout=0.01)
                    if serving.result().reason == "suspended" and self.drains:
                        self.drains -= 1
                        stopping.clear()
                        continue
                    return serving.result()
                except Killed:
                    continue
        finally:
            if stopping.is_set():
                self._stopped.set()
            for thread in self._threads:
                await asyncio.to_thread(thread.join)

    async def _serve(self, aggregator: Aggregator, stop: asyncio.Event) -> Outcome:
        """Serve until the end; when the aggregator is killed, its connections break without a word."""

        def listening(port: int) -> None:
            self._port = port
            self._listening.set()

        return await serve(
            aggregator,
            host="127.0.0.1",
            port=self._port,
            authenticate=authenticator(KEY, "uid"),
            stop=stop,
            listening=listening,
            clock=self.clock,
        )

    def _start(self, federation: Any, name: str, learners: dict[str, Any]) -> None:
        def work() -> None:
            for attempt in range(5):
                try:
                    assert self._listening.wait(30)
                    self.reasons[name] = run_worker(
                        learners[name],
                        worker=name,
                        job_digest="job",
                        endpoints=[f"127.0.0.1:{self._port}"],
                        token=worker_token(KEY, "uid", name),
                        attempt=attempt,
                        orphan_seconds=30,
                        stop=self._stopped,
                        packer=federation.packer_of(name),
                    )
                    return
                except Killed:
                    learners[name] = revived(federation, learners[name])
                except EngramError as error:
                    self.errors[name] = error
                    return

        thread = threading.Thread(target=work, name=name)
        self._threads.append(thread)
        thread.start()


def revived(federation: Any, learner: Any) -> Any:
    """Return a learner as a new process would make it, that will not be killed again."""
    return federation.workers()[learner.worker]


Transport = InProcess | WebSocket


def rows_of(outcome: Outcome) -> list[Any]:
    """Return the history without times."""
    rounds = [row.model_dump(exclude={"started", "seconds"}) for row in outcome.history.rounds]
    return rounds + [row.model_dump(exclude={"started", "seconds"}) for row in outcome.history.tasks]


def fast(make_federation: MakeFederation, store: CheckpointStore | None = None, **settings: Any) -> Any:
    # Silence is measured by a clock a thousand times too fast: 300 s, or a worker that waits for its turn, or
    # for a busy machine, becomes silent.
    patience = {"tick_seconds": 0.01, "linger_seconds": 1.0, "heartbeat_seconds": 1e5}
    return make_federation(store, **patience, **settings)
