"""Connections that read and write large payloads in place, with the library on the other side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from engram.errors import ProtocolError
from engram.federation.codec import Encoder
from engram.federation.messages import Update
from engram.federation.pieces import Incoming, Room, pieces_of
from engram.federation.tensors import Buffer
from engram.federation.websocket import stream as stream_module
from engram.federation.websocket.gate import Gate
from engram.federation.websocket.stream import WRITE_LIMIT, ClientStream, ServerStream, Stream

LARGE = stream_module.SMALLEST + 1000
KINDS = st.sampled_from(["whole", "ping", "fragments"])


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert (high, low) == WRITE_LIMIT

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def client_stream() -> tuple[ClientStream, ServerProtocol, Wire]:
    """Return a worker's end, the server's protocol, and what the worker writes; the request is sent."""
    protocol, server, wire = ClientProtocol(parse_uri("ws://host/")), ServerProtocol(max_size=None), Wire()
    stream = ClientStream(protocol, ping_interval=None, write_limit=WRITE_LIMIT)
    stream.lend = Room(1).lend
    stream.connection_made(wire)
    protocol.send_request(protocol.connect())
    server.receive_data(b"".join(protocol.data_to_send()))
    request: Any = server.events_received()[0]
    server.send_response(server.accept(request))
    return stream, server, wire


def feed(stream: Stream, data: bytes) -> None:
    """Let bytes come as a transport would."""
    while data:
        room = stream.get_buffer(-1)
        assert len(room)
        part = data[: len(room)]
        room[: len(part)] = part
        stream.buffer_updated(len(part))
        data = data[len(part) :]


async def received(stream: Stream, count: int) -> list[bytes]:
    async with asyncio.timeout(5):
        items = [await stream.receive() for _ in range(count)]
    return [bytes(item.data if isinstance(item, Incoming) else item) for item in items]


def message_of(size: int) -> list[bytes]:
    """Return the frames of a message with a tensor of so many bytes."""
    encoded = Encoder().encode(Update(1, 1, 1, {"w": np.arange(size).astype(np.uint8)}))
    data = encoded.join()
    return [data[start : start + 300] for start in range(0, len(data), 300)]


def frames(server: ServerProtocol, kind: str, size: int) -> bytes:
    """Let the server say something, and return what the worker is to receive of it."""
    if kind == "whole":
        data = bytes(range(256)) * (size // 256 + 1)
        server.send_binary(data)
        return data
    if kind == "ping":
        server.send_ping(b"ping")
        return b""
    parts = message_of(size)
    for index, part in enumerate(parts):
        fin = index == len(parts) - 1
        server.send_binary(part, fin=fin) if index == 0 else server.send_continuation(part, fin=fin)
        if index == 1:
            server.send_ping(b"between")
    return b"".join(parts)


@given(
    said=st.lists(st.tuples(KINDS, st.integers(0, 9000)), max_size=6),
    cuts=st.lists(st.integers(1, 5000), max_size=12),
    gate=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_what_was_said_is_received_however_its_bytes_are_cut(
    runner: asyncio.Runner, said: list[tuple[str, int]], cuts: list[int], gate: bool
) -> None:
    async def check() -> None:
        stream, server, wire = client_stream()
        stream.gate = Gate(0) if gate else None
        handshake = b"".join(server.data_to_send())
        expected = [data for kind, size in said if (data := frames(server, kind, size))]
        data = b"".join(server.data_to_send())
        feed(stream, handshake)
        for cut in cuts:
            feed(stream, data[:cut])
            data = data[cut:]
        feed(stream, data)
        assert await received(stream, len(expected)) == expected
        server.receive_data(bytes(wire.written))
        events = [event for event in server.events_received() if isinstance(event, Frame)]
        assert len(events) >= sum(kind == "ping" for kind, _ in said)
        assert all(event.opcode is Opcode.PONG for event in events)

    runner.run(check())


def open_stream(gate: Gate) -> tuple[ClientStream, ServerProtocol, Wire]:
    stream, server, wire = client_stream()
    stream.gate = gate
    feed(stream, b"".join(server.data_to_send()))
    return stream, server, wire


def test_a_message_without_room_is_read_when_another_is_done_with(runner: asyncio.Runner) -> None:
    async def check() -> None:
        gate = Gate(LARGE)
        first, second = open_stream(gate), open_stream(gate)
        said = [frames(server, "whole", LARGE) for _, server, _ in (first, second)]
        for stream, server, _ in (first, second):
            feed(stream, b"".join(server.data_to_send()))
        assert [wire.paused for _, _, wire in (first, second)] == [False, True]
        waiting = asyncio.create_task(received(second[0], 1))
        assert await received(first[0], 1) == [said[0]]
        # What comes although reading was to pause, as the library's own limits may have it, is kept.
        expected = frames(second[1], "whole", 100)
        feed(second[0], b"".join(second[1].data_to_send()))
        assert second[2].paused
        assert not waiting.done()
        following = asyncio.create_task(first[0].receive())
        assert await waiting == [said[1]]
        assert not second[2].paused
        assert await received(second[0], 1) == [expected]
        following.cancel()

    runner.run(check())


@pytest.mark.parametrize("when", ["waiting", "on its way", "whole", "received"])
def test_a_lost_connection_gives_its_room_back(runner: asyncio.Runner, when: str) -> None:
    async def check() -> None:
        gate = Gate(0)
        first, second = open_stream(gate), open_stream(gate)
        said = [frames(server, "whole", LARGE) for _, server, _ in (first, second)]
        data = b"".join(first[1].data_to_send())
        feed(first[0], data if when != "on its way" else data[:-1])
        feed(second[0], b"".join(second[1].data_to_send()))
        if when == "waiting":
            lost, other, expected = second, first, said[0]
        else:
            lost, other, expected = first, second, said[1]
        if when == "received":
            await received(first[0], 1)
        lost[0].connection_lost(None)
        assert await received(other[0], 1) == [expected]
        assert await _ended(other[0])
        assert gate.enter(1, print) is not None

    runner.run(check())


async def _ended(stream: Stream) -> bool:
    """Ask for one more message of a connection that then ends."""
    asking = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    stream.connection_lost(None)
    with pytest.raises(ConnectionClosed):
        await asking
    return True


def test_what_follows_a_handshake_in_its_packet_is_left_to_the_library(runner: asyncio.Runner) -> None:
    async def check() -> None:
        stream, server, _ = client_stream()
        expected = [frames(server, "whole", size) for size in (10, LARGE)]
        feed(stream, b"".join(server.data_to_send()))
        assert await received(stream, 2) == expected

    runner.run(check())


@pytest.mark.parametrize("wrong", ["short", "long", "garbage"])
def test_fragments_that_make_no_message_are_a_protocol_error(runner: asyncio.Runner, wrong: str) -> None:
    async def check() -> None:
        stream, server, _ = client_stream()
        feed(stream, b"".join(server.data_to_send()))
        parts = message_of(2000)
        if wrong == "short":
            parts.pop()
        elif wrong == "long":
            parts.append(b"more")
        else:
            parts[0] = bytes(300)
        server.send_binary(parts[0], fin=False)
        for part in parts[1:-1]:
            server.send_continuation(part, fin=False)
        server.send_continuation(parts[-1], fin=True)
        feed(stream, b"".join(server.data_to_send()))
        with pytest.raises(ProtocolError):
            await stream.receive()

    runner.run(check())


def test_a_worker_writes_masked_frames_that_the_library_reads(runner: asyncio.Runner) -> None:
    async def check() -> None:
        stream, server, wire = client_stream()
        feed(stream, b"".join(server.data_to_send()))
        encoded = Encoder().encode(Update(1, 1, 1, {"a": np.arange(7), "w": np.arange(400_001)}))
        await stream.transmit(encoded)
        await stream.transmit([b"piece of", memoryview(b" several parts")])
        server.receive_data(bytes(wire.written))
        events = [event for event in server.events_received() if isinstance(event, Frame)]
        sizes = [len(event.data) for event in events[:-1]]
        assert len(sizes) == 4
        assert max(sizes) <= 1024 * 1024
        assert b"".join(event.data for event in events[:-1]) == encoded.join()
        assert events[-1].data == b"piece of several parts"

    runner.run(check())


def test_a_pong_waits_for_the_end_of_a_frame(runner: asyncio.Runner) -> None:
    async def check() -> None:
        stream, server, wire = client_stream()
        feed(stream, b"".join(server.data_to_send()))
        stream.pause_writing()
        sending = asyncio.create_task(stream.send_frames(iter([[bytes(1_000_000)]])))
        await asyncio.sleep(0)
        server.send_ping(b"now")
        feed(stream, b"".join(server.data_to_send()))
        begun = len(wire.written)
        assert 0 < begun < 1_000_000
        stream.resume_writing()
        await sending
        server.receive_data(bytes(wire.written))
        events = [event for event in server.events_received() if isinstance(event, Frame)]
        assert [event.opcode for event in events] == [Opcode.BINARY, Opcode.PONG]

    runner.run(check())


def test_half_a_frame_ends_the_connection(runner: asyncio.Runner) -> None:
    async def check() -> None:
        stream, server, wire = client_stream()
        feed(stream, b"".join(server.data_to_send()))
        stream.pause_writing()
        sending = asyncio.create_task(stream.send_frames(iter([[bytes(1_000_000)]])))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert wire.closing
        stream.connection_lost(None)
        with pytest.raises(ConnectionClosed):
            await stream.transmit([bytes(LARGE)])

    runner.run(check())


def test_a_connection_lost_while_a_frame_is_written_is_told(runner: asyncio.Runner) -> None:
    async def check() -> None:
        stream, server, _ = client_stream()
        feed(stream, b"".join(server.data_to_send()))
        stream.pause_writing()
        sending = asyncio.create_task(stream.send_frames(iter([[bytes(1_000_000)]])))
        await asyncio.sleep(0)
        stream.connection_lost(ConnectionResetError("gone"))
        with pytest.raises(ConnectionClosed):
            await sending

    runner.run(check())


def test_pieces_of_the_librarys_client_go_to_their_place_and_others_are_handed_on(
    runner: asyncio.Runner,
) -> None:
    data = np.random.default_rng(0).bytes(5 * LARGE)
    cuts: list[list[Buffer]] = [[data[start : start + LARGE]] for start in range(0, len(data), LARGE)]
    pieces = [b"".join(piece) for piece in pieces_of(3, iter(cuts))]
    stale = b"".join(next(pieces_of(2, iter(cuts))))
    said = [b"small", pieces[0], bytes(LARGE), stale, pieces[1], pieces[3], *pieces[2:], b"last"]
    incoming, heard = Incoming(3, Room(1).lend(len(data)), 0.0), []
    found: list[Buffer | Incoming] = []

    async def check() -> None:
        over = asyncio.Event()

        async def handle(connection: ServerConnection) -> None:
            stream = cast(ServerStream, connection)
            stream.upload, stream.heard = lambda: incoming, lambda: heard.append(1)
            while not found or found[-1] != b"last":
                found.append(await stream.receive())
            over.set()

        async with serve(handle, "127.0.0.1", 0, create_connection=ServerStream, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as client:
                for part in said:
                    await client.send(part)
                async with asyncio.timeout(5):
                    await over.wait()

    runner.run(check())
    assert heard
    # The fourth piece before the third has no place; it and the stale one are for the reader to judge.
    assert [item if isinstance(item, Incoming) else bytes(item) for item in found] == [
        b"small",
        bytes(LARGE),
        stale,
        pieces[3],
        incoming,
        b"last",
    ]
    assert bytes(incoming.data) == data
