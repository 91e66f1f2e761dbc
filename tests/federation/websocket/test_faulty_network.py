"""Real workers and a real server with a network between them that cuts, freezes, dribbles and replays."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from engram.errors import RetryError
from engram.federation.inprocess import run_in_process
from engram.federation.messages import Tensors
from engram.federation.outcome import Outcome
from engram.federation.tokens import authenticator
from engram.federation.websocket import client, dial, hub, server
from engram.federation.websocket.server import serve
from tests.federation.websocket.raw import KEY, work_at

MakeFederation = Callable[..., Any]
SameBits = Callable[[Tensors, Tensors], bool]
Kind = Literal["pass", "cut", "truncate", "freeze", "dribble", "slow", "replay"]
SLOW_SECONDS, SLOW_BYTES = 0.01, 128


@dataclass(frozen=True)
class Fault:
    """What becomes of one connection once `after` bytes went `direction`.

    cut: both sides are closed, what was on its way is lost. truncate: the stream ends there in good order, in
    the middle of whatever was being said. slow: 12 kB/s. freeze: nothing is forwarded any more, both sides
    stay open and what they write is swallowed. dribble: a few bytes at a time. replay: what the worker said
    so far is said once more on a connection of its own.
    """

    kind: Kind
    direction: Literal["up", "down"] = "up"
    after: int = 0


@dataclass
class Proxy:
    """A TCP proxy for one worker; its n-th connection suffers the n-th fault, later ones none."""

    upstream: int
    faults: list[Fault]
    port: int = 0
    accepted: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        fault = self.faults[self.accepted] if self.accepted < len(self.faults) else Fault("pass")
        self.accepted += 1
        self.connected.set()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(far_writer)
        line = _Line(self, fault, writer, far_writer)
        self.spawn(line.pump("up", reader, far_writer))
        self.spawn(line.pump("down", far_reader, writer))

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

    async def replay(self, said: bytes) -> None:
        """Be a ghost of the worker, that says what it said and listens."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._writers.append(writer)
            writer.write(said)
            while await reader.read(65536):
                pass


@dataclass
class _Line:
    """One proxied connection."""

    proxy: Proxy
    fault: Fault
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    frozen: bool = False
    said: bytes = b""

    async def pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = self.fault.kind
        step = {"dribble": 7, "slow": SLOW_BYTES}.get(kind, 65536)
        left = self.fault.after if direction == self.fault.direction else 0
        with contextlib.suppress(OSError):
            while data := await reader.read(min(step, left or step)):
                if self.frozen:
                    continue
                if kind == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                writer.write(data)
                if direction == "up":
                    self.said += data
                left = max(0, left - len(data)) if left else -1
                if left == 0:
                    self._strike(kind)
                left = max(left, 0)
        if not self.frozen:
            writer.close()

    def _strike(self, kind: Kind) -> None:
        if kind == "freeze":
            self.frozen = True
        elif kind == "truncate":
            self.near.close()
            self.far.close()
        elif kind == "cut":
            self.near.transport.abort()
            self.far.transport.abort()
        elif kind == "replay":
            self.proxy.spawn(self.proxy.replay(self.said))


class Network:
    """A server, a worker behind each of its proxies, and how they ended."""

    def __init__(self, federation: Any, faults: dict[str, list[Fault]]) -> None:
        self.federation, self.faults = federation, faults
        self.reasons: dict[str, str] = {}
        self.proxies: dict[str, Proxy] = {}

    def run(self) -> Outcome:
        return asyncio.run(self._run())

    async def _run(self) -> Outcome:
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        aggregator = self.federation.aggregator()
        stop = asyncio.Event()
        serving = asyncio.create_task(
            serve(
                aggregator,
                host="127.0.0.1",
                port=0,
                authenticate=authenticator(KEY, "uid"),
                stop=stop,
                listening=listening.set_result,
            )
        )
        upstream = await listening
        workers = []
        for name, learner in self.federation.workers().items():
            proxy = self.proxies[name] = Proxy(upstream, self.faults.get(name, []))
            await proxy.start()
            workers.append(asyncio.create_task(asyncio.to_thread(self._work, name, learner, proxy.port)))
        try:
            async with asyncio.timeout(30):
                outcome = await serving
                await asyncio.gather(*workers)
        finally:
            stop.set()
            for proxy in self.proxies.values():
                await proxy.stop()
        return outcome

    def _work(self, name: str, learner: Any, port: int) -> None:
        self.reasons[name] = work_at(port, name, learner)


@pytest.fixture
def network(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch, in_pieces: None
) -> Callable[..., Network]:
    monkeypatch.setattr(client, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(dial, "OPEN_SECONDS", 0.5)
    monkeypatch.setattr(client, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(dial, "CLOSE_SECONDS", 0.1)
    for module in (hub, server):
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)

    def make(faults: dict[str, list[Fault]]) -> Network:
        return Network(make_federation(tick_seconds=0.02, hello_seconds=0.5, linger_seconds=5.0), faults)

    return make


MakeNetwork = Callable[..., Network]


@pytest.fixture
def weights(make_federation: MakeFederation) -> Tensors:
    """What the job gives when nothing goes wrong."""
    federation = make_federation()
    result: Tensors = run_in_process(federation.aggregator(), federation.workers(), lambda: False).weights
    return result


def random_faults(seed: int, workers: tuple[str, ...]) -> dict[str, list[Fault]]:
    rng = random.Random(seed)

    def fault() -> Fault:
        kind: Kind = rng.choice(["cut", "truncate", "freeze", "dribble", "slow", "replay"])
        # The handshake is some 400 bytes a way, hello and welcome some 300, an order or update some 800.
        return Fault(kind, rng.choice(["up", "down"]), rng.randrange(1, 4000))

    return {worker: [fault() for _ in range(rng.randrange(1, 5))] for worker in workers}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_network_does_the_result_is_the_same(
    seed: int, network: MakeNetwork, weights: Tensors, same_bits: SameBits
) -> None:
    workers = tuple(f"trainworker-edge-{index}" for index in range(3))
    made = network(random_faults(seed, workers))
    outcome = made.run()
    assert outcome.reason == "complete"
    assert same_bits(outcome.weights, weights)
    assert made.reasons == dict.fromkeys(workers, "complete")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_connection_that_freezes_without_a_word_is_given_up_and_replaced(
    direction: Literal["up", "down"], network: MakeNetwork, weights: Tensors, same_bits: SameBits
) -> None:
    worker = "trainworker-edge-1"
    # In the middle of the first order or of its answer: the handshake, hello and welcome are through.
    made = network({worker: [Fault("freeze", direction, 1100)]})
    outcome = made.run()
    assert same_bits(outcome.weights, weights)
    assert outcome.history.faults.reconnects == {worker: 1}
    assert made.proxies[worker].accepted == 2


@pytest.mark.parametrize("kind", ["truncate", "slow", "dribble"])
def test_a_stream_that_ends_within_a_message_or_crawls_changes_nothing(
    kind: Kind, network: MakeNetwork, weights: Tensors, same_bits: SameBits
) -> None:
    worker = "trainworker-edge-1"
    made = network({worker: [Fault(kind, "up", 1100)]})
    outcome = made.run()
    assert same_bits(outcome.weights, weights)
    assert outcome.history.faults.rejected == {}
    assert made.proxies[worker].accepted == (2 if kind == "truncate" else 1)


def test_a_ghost_that_repeats_a_workers_words_does_not_keep_it_out(
    network: MakeNetwork, weights: Tensors, same_bits: SameBits
) -> None:
    worker = "trainworker-edge-1"
    made = network({worker: [Fault("replay", "up", 1100)]})
    outcome = made.run()
    assert same_bits(outcome.weights, weights)
    assert made.reasons[worker] == "complete"


def test_a_worker_whose_aggregator_answers_nobody_leaves_after_its_orphan_seconds(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "OPEN_SECONDS", 0.05)
    learner = make_federation(workers=1).workers()["trainworker-edge-0"]

    async def main() -> None:
        callers: list[asyncio.StreamWriter] = []
        deaf = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", 0)
        port = deaf.sockets[0].getsockname()[1]
        try:
            await asyncio.to_thread(work_at, port, "trainworker-edge-0", learner, orphan_seconds=0.3)
        finally:
            deaf.close()
            for writer in callers:
                writer.transport.abort()
            await deaf.wait_closed()

    with pytest.raises(RetryError, match="no contact"):
        asyncio.run(main())
