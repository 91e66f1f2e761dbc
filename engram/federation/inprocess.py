"""The in-process transport: workers are objects, messages are handed over, bytes are counted as on the wire.

For benchmarks and tests without sockets. Workers take turns in a fixed order, so time passes only inside
them; when all wait for somebody who is not there, the clock is set forward to the deadline instead of
waiting for it. A crew trains a round of all workers at once: its orders are kept until nothing else is left
to hand over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from engram.errors import FederationError
from engram.federation.aggregator import Aggregator
from engram.federation.clock import Clock
from engram.federation.codec import Common, Encoder
from engram.federation.compression.packer import Packer
from engram.federation.compression.residuals import MemoryResiduals, Residuals
from engram.federation.messages import Heartbeat, Message, Outgoing, Train
from engram.federation.outcome import Outcome
from engram.federation.roles import Crew, LocalLearner
from engram.federation.worker import WorkerSession

HEARTBEAT_SECONDS = 0.5
"""How often at most a worker's progress is shown while it trains."""


class _Connection:
    """One worker's session, with an encoder each way that only counts."""

    def __init__(self, session: WorkerSession, common: Common) -> None:
        self.session = session
        self._encoders = {"down": Encoder(common), "up": Encoder(common)}

    def size(self, direction: str, message: Message) -> int:
        """Return the bytes that `message` would be on this connection."""
        return self._encoders[direction].encode(message).size


class _Run:
    """The loop's state."""

    def __init__(
        self,
        aggregator: Aggregator,
        workers: Mapping[str, LocalLearner],
        residuals: Callable[[str], Residuals],
        crew: Crew | None,
    ) -> None:
        self._aggregator, self._residuals, self._crew = aggregator, residuals, crew
        self._clock = Clock()
        self._skipped = 0.0
        self._workers = workers
        self._common = Common()
        self._connections: dict[str, _Connection] = {}
        self._queue: deque[Outgoing] = deque()
        self._trained: dict[str, Train] = {}
        """The newest order of each worker that the crew has trained."""

    def now(self) -> float:
        """Return the time, deadlines that were skipped included."""
        return self._clock() + self._skipped

    def connect(self) -> None:
        """Let every worker that is new say hello."""
        for name in [name for name in self._workers if name not in self._connections]:
            settings = self._aggregator.settings
            method = settings.method
            packer = None if method is None else Packer(method, self._residuals(name))
            session = WorkerSession(self._workers[name], name, settings.job_digest, packer=packer)
            connection = self._connections[name] = _Connection(session, self._common)
            hello = connection.session.hello()
            self._aggregator.transferred(name, "up", connection.size("up", hello), hello)
            self._post(self._aggregator.connect(name, hello, self.now()))

    def step(self) -> None:
        """Hand over one message, or let the deadline pass when there is none."""
        self.connect()
        if not self._queue:
            self._wait()
            return
        if self._crew is not None:
            self._train_together(self._crew)
        worker, message = self._queue.popleft()
        connection = self._connections[worker]
        for answer in connection.session.receive(message, self._progress(worker)):
            self._aggregator.transferred(worker, "up", connection.size("up", answer), answer)
            self._post(self._aggregator.receive(worker, answer, self.now()))

    def _train_together(self, crew: Crew) -> None:
        """Where an order to train is next, let all else pass; without anything else, train all of them."""
        worker, message = self._queue[0]
        if not isinstance(message, Train) or self._trained.get(worker) is message:
            return
        orders: dict[str, Train] = {}
        passing: list[Outgoing] = []
        staying: list[Outgoing] = []
        for letter in self._queue:
            if isinstance(letter.message, Train):
                orders.setdefault(letter.worker, letter.message)
            # What follows an order stays behind it.
            (staying if letter.worker in orders else passing).append(letter)
        if passing:
            self._queue = deque(passing + staying)
            return
        new = {name: order for name, order in orders.items() if self._trained.get(name) is not order}
        crew.train(new, {name: self._progress(name) for name in new})
        self._trained.update(new)

    def suspend(self) -> None:
        """Stop with everything durable."""
        self._aggregator.suspend(self.now())

    def _post(self, outgoing: list[Outgoing]) -> None:
        self._aggregator.begin(self.now())
        for letter in outgoing:
            size = self._connections[letter.worker].size("down", letter.message)
            self._aggregator.transferred(letter.worker, "down", size, letter.message)
            self._aggregator.sent(letter.message, self.now())
            self._queue.append(letter)
        self._aggregator.settle()

    def _wait(self) -> None:
        """Set the clock forward to the deadline; nobody here has anything left to do."""
        before = self._aggregator.status()
        deadline = self._aggregator.deadline
        if deadline is not None and deadline > self.now():
            self._skipped += deadline - self.now()
        self._post(self._aggregator.tick(self.now()))
        status = self._aggregator.status()
        if not self._queue and self._aggregator.outcome is None and status.stage == before.stage:
            raise FederationError(
                f"the run cannot go on: {status.degraded or status.stage}; missing: "
                f"{', '.join(status.missing)}"
            )

    def _progress(self, worker: str) -> Callable[[float, float], None]:
        last = 0.0

        def report(share: float, loss: float) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= HEARTBEAT_SECONDS:
                last = now
                beat = Heartbeat("training", progress=share, loss=loss)
                self._aggregator.receive(worker, beat, self.now())

        return report


def run_in_process(
    aggregator: Aggregator,
    workers: Mapping[str, LocalLearner],
    stop: Callable[[], bool],
    residuals: Callable[[str], Residuals] = lambda worker: MemoryResiduals(),
    crew: Crew | None = None,
) -> Outcome:
    """Run the job to its end, or until `stop()` says so between two messages (then suspended).

    A worker that is put into `workers` while the run goes on joins it. `residuals` returns where a worker
    keeps what compression owes. `crew`, whose members are then the `workers`, trains their rounds together.
    A worker's exception propagates as it is. Raises FederationError when the quorum cannot be reached with
    the workers given, CheckpointError when a checkpoint cannot be written.
    """
    run = _Run(aggregator, workers, residuals, crew)
    while aggregator.outcome is None:
        if stop():
            run.suspend()
        else:
            run.step()
    return aggregator.outcome
