"""Mutants against the aggregator in this process: handshake, decoding, admission, machine, validation."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import numpy as np
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from engram.errors import ProtocolError, RefusedError
from engram.federation import codec, pieces
from engram.federation.aggregator import Aggregator
from engram.federation.messages import (
    Consolidated,
    Evaluation,
    Hello,
    Log,
    Offer,
    Reject,
    Up,
    Update,
)
from engram.federation.settings import Settings
from engram.federation.tokens import authenticator
from engram.federation.websocket.hub import Hub
from engram.federation.websocket.wire import LARGEST_FRAME, SUBPROTOCOL
from engram.spec.tokens import worker_token
from engram.spec.training import Evaluation as EvaluationSpec
from tests.federation.conftest import Federation
from tests.fuzz import corpus, mutate

HANG_SECONDS = 5.0
"""Of this process's own time; a machine that is busy with other things is no hang."""
PIECE = 64
GOOD: Mapping[type[Any], Update | Consolidated | Evaluation] = {
    type(message): message
    for message in reversed(corpus.UP)
    if isinstance(message, Update | Consolidated | Evaluation)
}
"""The answer of each kind that a good worker gives."""


class Hung(BaseException):
    """One input keeps the aggregator busy for far too long."""


@dataclass(frozen=True)
class Failure(Exception):
    """An input that did what none may do."""

    target: str
    data: bytes
    error: BaseException

    def __str__(self) -> str:
        return f"{self.target}: {type(self.error).__name__}: {self.error}"


class Inside:
    """The targets, and what became of each input."""

    def __init__(self, seed: int) -> None:
        self.seed, self.counts = seed, Counter[tuple[str, str]]()
        self.done = 0
        self._handshake = corpus.handshake(corpus.WORKER, worker_token(corpus.KEY, "uid", corpus.WORKER))
        self._up = [corpus.encoded(message) for message in corpus.UP]
        self._down = [corpus.encoded(message) for message in corpus.DOWN]
        self._hub = asyncio.run(_hub())
        self._aggregator = aggregator_in("round")
        self._targets: Mapping[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], str]]] = {
            "handshake": (self._request, self.handshake),
            "message": (lambda rng: _mutant(rng, self._up), self.message),
            "message down": (lambda rng: _mutant(rng, self._down), self.message_down),
            "pieces": (self._in_pieces, self.pieces),
        }
        self._shares = ["handshake"] * 2 + ["message"] * 12 + ["message down"] * 3 + ["pieces"] * 3

    def run(self, inputs: int) -> None:
        """Try so many inputs more. Raises Failure."""
        before = signal.signal(signal.SIGVTALRM, _hung)
        try:
            for _ in range(inputs):
                self.one(self.done)
                self.done += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)

    def one(self, index: int) -> None:
        """Try the input of that number. Raises Failure."""
        rng = random.Random(self.seed << 32 | index)
        if index % 256 == 0 or self._aggregator.outcome is not None:
            self._aggregator = aggregator_in(rng.choice(("round", "consolidate", "evaluate")))
        target = rng.choice(self._shares)
        make, take = self._targets[target]
        data = make(rng)
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
        try:
            outcome = take(data)
        except (ProtocolError, RefusedError) as error:
            outcome = "refused" if isinstance(error, RefusedError) else "no message"
        except (Exception, Hung) as error:
            raise Failure(target, data, error) from error
        self.counts[target, outcome] += 1

    # How inputs are made.

    def _request(self, rng: random.Random) -> bytes:
        return mutate.of_request(rng, self._handshake)

    def _in_pieces(self, rng: random.Random) -> bytes:
        """Return the pieces of an update, some changed, one after the other with their lengths."""
        data = self._up[1] if rng.random() < 0.5 else _mutant(rng, self._up)
        cuts = ([data[start : start + PIECE]] for start in range(0, len(data), PIECE))
        made = [b"".join(piece) for piece in pieces.pieces_of(1, cuts)]
        for _ in range(rng.randrange(3)):
            if not made:
                break
            place, other = rng.randrange(len(made)), rng.randrange(len(made))
            match rng.randrange(4):
                case 0:
                    made[place] = mutate.blind(rng, made[place])
                case 1:
                    made[place], made[other] = made[other], made[place]
                case 2:
                    made.insert(place, made[other])
                case _:
                    del made[place]
        return b"".join(len(piece).to_bytes(4) + piece for piece in made)

    # How they are taken. Each returns in a word what became of them.

    def handshake(self, data: bytes) -> str:
        """Let the WebSocket library read a request and the hub admit it."""
        protocol = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=LARGEST_FRAME)
        protocol.receive_data(data)
        protocol.receive_eof()
        requests = [event for event in protocol.events_received() if isinstance(event, Request)]
        if not requests or protocol.handshake_exc is not None:
            return "no request"
        response = self._hub.admit(cast(Any, _Connection(protocol)), requests[0])
        response = response or protocol.accept(requests[0])
        return str(response.status_code)

    def message(self, data: bytes) -> str:
        """Let the aggregator have what a connected worker sent, as the hub does."""
        codec.size_in_start(data)
        return self._take(codec.Decoder[Up](codec.UP).decode(data))

    def message_down(self, data: bytes) -> str:
        """Let a worker decode what an aggregator sent."""
        codec.size_in_start(data)
        return type(codec.Decoder[Any](codec.DOWN).decode(data)).__name__

    def pieces(self, data: bytes) -> str:
        """Let an upload be put together and read when it is complete."""
        incoming = pieces.Incoming(1, np.empty(len(self._up[1]), np.uint8), 0.0)
        while data:
            size = int.from_bytes(data[:4])
            piece, data = data[4 : 4 + size], data[4 + size :]
            if pieces.is_piece(piece) and incoming.take(piece, 0.0) and incoming.complete:
                return self._take(codec.Decoder[Up](codec.UP).decode(incoming.data))
        return "incomplete"

    def _take(self, message: Up) -> str:
        aggregator = self._aggregator
        if isinstance(message, Offer) and message.size > aggregator.message_limit:
            return "too large"
        step = aggregator.connect if isinstance(message, Hello) else aggregator.receive
        outgoing = step(corpus.WORKER, cast(Any, message), 1.0)
        aggregator.settle()
        if aggregator.outcome is not None and not isinstance(message, Log):
            raise RuntimeError(f"the run is over: {aggregator.outcome.message}")
        for _, answer in outgoing:
            if isinstance(answer, Reject):
                return f"rejected: {answer.reason}"
        good = GOOD.get(type(message))
        if good is not None:
            # Now what was taken is used: the other worker's answer closes the stage.
            aggregator.receive(corpus.OTHER, good, 2.0)
            aggregator.settle()
            if aggregator.outcome is not None and aggregator.outcome.reason != "complete":
                raise RuntimeError(f"the run is over: {aggregator.outcome.message}")
            self._aggregator = aggregator_in("round")
        return f"taken: {type(message).__name__}"


class _Connection:
    """What `admit` needs of a connection."""

    def __init__(self, protocol: ServerProtocol) -> None:
        self.respond = protocol.reject


async def _hub() -> Hub:
    return Hub(aggregator_in("round"), authenticator(corpus.KEY, "uid"), lambda: 0.0)


def aggregator_in(stage: str) -> Aggregator:
    """Return an aggregator of two workers that waits in `stage` for the answers of both."""
    workers = (corpus.WORKER, corpus.OTHER)
    location = EvaluationSpec.model_validate({"location": "workers"})
    aggregator = Federation(Settings("job", 7, workers, (1, 1), evaluation=location)).aggregator()
    for worker in workers:
        aggregator.connect(worker, corpus.hello_of(worker), 0.0)
    answers: list[Up] = []
    if stage != "round":
        answers.append(GOOD[Update])
    if stage == "evaluate":
        answers.append(GOOD[Consolidated])
    for answer in answers:
        for worker in workers:
            aggregator.receive(worker, answer, 0.0)
    assert aggregator.status().stage == stage, aggregator.status().stage
    return aggregator


def _mutant(rng: random.Random, good: list[bytes]) -> bytes:
    return rng.choice(mutate.OF_MESSAGES)(rng, rng.choice(good))


def _hung(number: int, frame: FrameType | None) -> None:
    raise Hung(f"an input took {HANG_SECONDS:g} s of processor time")
