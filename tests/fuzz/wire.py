"""Mutants over loopback against a real server, beside good workers that finish a round afterwards.

Each connection carries one mutant: as its handshake, as its hello, as a message, or as raw frames. A message
that no worker may say follows it, so the server always has a reason to close; one that does not is hung.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed

from engram.federation.messages import Log, Train, Wait, Welcome
from engram.federation.settings import Settings
from engram.federation.tokens import authenticator
from engram.federation.websocket.server import serve
from engram.spec.tokens import worker_token
from tests.federation.conftest import Federation
from tests.federation.websocket.raw import KEY, Peer, Server, update_of
from tests.fuzz import corpus, mutate

LANES = 4
"""Workers that send mutants, each over one connection at a time; one more is good all the time."""
HANG_SECONDS = 20.0
END_SECONDS = 0.05
"""A connection that may be waited for in vain is ended by us after so long."""
WHOLE = ("hello", "message")
GOOD = f"trainworker-edge-{LANES}"
LAST = corpus.frame(corpus.encoded(Wait()))
AFTER_LAST = "a message of kind 'Wait' is not expected here"
SPOKEN = [corpus.encoded(message) for message in corpus.UP if not isinstance(message, Log)]
"""Without last words: with them a worker may end the run."""


@dataclass(frozen=True)
class WireFailure(Exception):
    """A mutant that the server did not get rid of, or that harmed others."""

    data: bytes
    what: str

    def __str__(self) -> str:
        return self.what


@dataclass
class Wire:
    """The lanes, and what became of each mutant."""

    seed: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def run(self, inputs: int) -> None:
        """Send so many mutants, then let all workers finish a round. Raises WireFailure."""
        asyncio.run(self._run(inputs))

    async def _run(self, inputs: int) -> None:
        workers = tuple(f"trainworker-edge-{index}" for index in range(LANES + 1))
        settings = Settings("job", 7, workers, (2,), tick_seconds=0.1, linger_seconds=0.1)
        server = Server(Federation(settings).aggregator())
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
        try:
            await server.ready()
            async with server.peer(GOOD) as good:
                assert isinstance(await good.hear(), Welcome)
                shares = [range(lane, inputs, LANES) for lane in range(LANES)]
                lanes = (self._lane(server.port, *item) for item in zip(workers, shares, strict=False))
                await asyncio.gather(*lanes)
                try:
                    await _finish_a_round(server, workers[:LANES], good)
                except (OSError, ConnectionClosed, TimeoutError) as error:
                    raise WireFailure(b"", f"the good workers do not finish a round: {error}") from error
        finally:
            server.stop.set()
            await server.serving

    async def _lane(self, port: int, worker: str, share: range) -> None:
        """Send one worker's mutants, one connection after the other."""
        opening = corpus.handshake(worker, worker_token(KEY, "uid", worker))
        hello = corpus.frame(corpus.encoded(corpus.hello_of(worker)))
        makers: dict[str, Callable[[random.Random], bytes]] = {
            "handshake": lambda rng: mutate.of_request(rng, opening) + hello,
            "hello": lambda rng: opening + corpus.frame(_mutant(rng, SPOKEN[:1])),
            "message": lambda rng: opening + hello + corpus.frame(_mutant(rng, SPOKEN)),
            "frames": lambda rng: opening + hello + mutate.blind(rng, corpus.frame(rng.choice(SPOKEN))),
        }
        for index in share:
            rng = random.Random(self.seed << 32 | index)
            kind = rng.choice(("handshake", "hello", "message", "message", "frames"))
            mutant = makers[kind](rng)
            self.counts[f"wire: {kind}", await _sent(port, mutant, whole=kind in WHOLE)] += 1


async def _sent(port: int, mutant: bytes, *, whole: bool) -> str:
    """Send all bytes on a connection of their own and return how the server ended it.

    One that is not `whole` may end within a frame or a request, which only the stream's end then ends.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise WireFailure(mutant, f"the server is gone before this one: {error}") from error
    heard = bytearray()
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(mutant + LAST)
            if not whole and not await _ends(reader, heard, END_SECONDS):
                writer.write_eof()
        if not await _ends(reader, heard, HANG_SECONDS):
            raise WireFailure(mutant, f"the server neither answers nor closes for {HANG_SECONDS:g} s")
    finally:
        writer.transport.abort()
    return _ending(bytes(heard))


async def _ends(reader: asyncio.StreamReader, heard: bytearray, seconds: float) -> bool:
    """Collect what comes until the stream ends or is about to; return whether that was within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not _closing(bytes(heard))[0] and (data := await reader.read(65536)):
                heard += data
    except TimeoutError:
        return False
    except ConnectionError:  # it did not wait for what we had left to say
        return True
    return True


def _closing(heard: bytes) -> tuple[int, str]:
    """Return code and reason of the server's closing frame; 0: there is none yet."""
    rest = heard.partition(b"\r\n\r\n")[2]
    while len(rest) >= 2:
        size, start = rest[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:start])
        if rest[0] & 0x0F == 8 and len(rest) >= start + 2:
            reason = rest[start + 2 : start + size].decode(errors="replace")
            return int.from_bytes(rest[start : start + 2]), reason
        rest = rest[start + size :]
    return 0, ""


def _ending(heard: bytes) -> str:
    """Return in words what the server said last: an HTTP status, or the code of its closing frame."""
    status = heard[9:12].decode(errors="replace")
    if status != "101":
        return f"HTTP {status}" if status else "closed without a word"
    code, reason = _closing(heard)
    if not code:
        return "closed without a word"
    return "taken" if reason == AFTER_LAST else f"closed with {code}"


async def _finish_a_round(server: Server, workers: Sequence[str], good: Peer) -> None:
    """Let every worker, the good one too, train until it is asked for round 2."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.peer(worker)) for worker in workers]
        await asyncio.gather(*(_train(peer) for peer in [*peers, good]))


async def _train(peer: Peer) -> None:
    while not (isinstance(heard := await peer.hear(), Train) and heard.round == 2):
        if isinstance(heard, Train):
            await peer.say(update_of(heard))


def _mutant(rng: random.Random, good: Sequence[bytes]) -> bytes:
    return rng.choice(mutate.OF_MESSAGES)(rng, rng.choice(good))
