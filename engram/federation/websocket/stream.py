"""Large messages go from a socket to where they are read, and from where they are to a socket, uncopied.

The library has the handshake, control frames and everything small that comes; on its own it copies a payload
three times on the way in and once or twice on the way out, which takes longer than the network. Frames are
told apart here: one whose payload has a place is read into it by the kernel, all others are handed to the
library as they came. What has been read this way takes its turn among the library's messages, with its limits
and its pauses.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Event

from engram.errors import ProtocolError
from engram.federation.codec import Encoded, Parts
from engram.federation.pieces import HEADER, Bytes, Fragments, Incoming, is_piece
from engram.federation.tensors import Buffer
from engram.federation.websocket.framing import (
    BINARY,
    CONTINUATION,
    WORD,
    Head,
    Mask,
    head_bytes,
    head_of,
    masked,
    plain,
)
from engram.federation.websocket.gate import Gate, Ticket
from engram.federation.websocket.wire import LARGEST_FRAME, unpace_loopback

SMALLEST = 4096
"""Payloads below this many bytes are the library's."""
READ = 16 * 1024
"""Bytes that are read at once where a frame has no place yet."""
WRITE_LIMIT = (1, 0)
"""A connection writes on when everything before has gone: what is not buffered is not copied, either."""
HANDSHAKE_END = b"\r\n\r\n"

Item: TypeAlias = Buffer | Incoming | ProtocolError

_of_thread = threading.local()


def _read_buffer() -> memoryview:
    """Return memory that all connections of a thread read into in turn."""
    if not hasattr(_of_thread, "buffer"):
        _of_thread.buffer = memoryview(bytearray(READ))
    buffer: memoryview = _of_thread.buffer
    return buffer


class _Filling:
    """A payload on its way to its place."""

    def __init__(self, head: Head, place: memoryview, done: Callable[[], None], skip: int = 0) -> None:
        self.done, self.skip = done, skip
        """`skip`: so many bytes in front of it have no place; whole words."""
        self._place, self._filled, self._clear = place, 0, 0
        self._mask = Mask(head.mask) if head.mask else None

    @property
    def rest(self) -> memoryview:
        """The part of the place that has nothing yet."""
        return self._place[self._filled :]

    def advance(self, size: int) -> bool:
        """Note that so many bytes came; return whether that is all."""
        self._filled += size
        whole = self._filled == len(self._place)
        if self._mask is not None:
            # Whole words at a time: the others are where their words are not complete.
            end = self._filled if whole else self._filled - self._filled % WORD
            part = self._place[self._clear : end]
            self._mask.apply(part, part, self._clear)
            self._clear = end
        return whole


class Stream(Connection, asyncio.BufferedProtocol):
    """A connection whose `receive` and `send_frames` do not copy what is large."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard: Callable[[], None] = lambda: None
        """Called when bytes of a large payload have come."""
        self.upload: Callable[[], Incoming | None] = lambda: None
        """Returns what pieces belong to; a server's."""
        self.lend: Callable[[int], Bytes] | None = None
        """Gives memory for messages in fragments; None leaves them to the library."""
        self.gate: Gate | None = None
        """Where whole messages wait until there is room for them; None: they do not."""
        self._buffer = _read_buffer()
        self._start = b""
        """Of a frame whose head is not all there."""
        self._left = 0
        """Bytes of the current frame that are the library's."""
        self._filling: _Filling | None = None
        self._fragments: Fragments | None = None
        self._framed = False
        """Whether a frame begins where the handshake ended."""
        self._placed: deque[tuple[Item, Ticket | None]] = deque()
        self._turn = secrets.token_bytes(16)
        """Stands for the next of `_placed` among the library's messages; no peer can know it."""
        self._sending = False
        """A frame is under way, and nothing may come in between."""
        self._unpaced = False
        """Whether it was made ready for what is large."""
        self._held = False
        """A message waits at the gate, its beginning in `_start`."""
        self._entering: Ticket | None = None
        """Of the message that comes in."""
        self._taken: Ticket | None = None
        """Of the message that was received last: done with when the next one is asked for."""
        self._lost = False

    # Reading.

    async def receive(self) -> Buffer | Incoming:
        """Return the next message, or what a last piece completed. Raises ProtocolError, ConnectionClosed."""
        if self._taken is not None:
            self._taken.leave()
            self._taken = None
        data: bytes = await self.recv(decode=False)
        if data != self._turn:
            return data
        item, self._taken = self._placed.popleft()
        if isinstance(item, ProtocolError):
            raise item
        return item

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        return self._buffer if self._filling is None else self._filling.rest

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        if self._filling is not None:
            self._advance(self._filling, nbytes)
            return
        data = self._buffer[:nbytes]
        if self._held:
            # The library has asked for more, which knows nothing of the gate.
            self._start += data
            self.transport.pause_reading()
            return
        while data:
            data = self._consume(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.BaseProtocol."""
        self._lost = True
        for ticket in (self._entering, self._taken, *(ticket for _, ticket in self._placed)):
            if ticket is not None:
                ticket.leave()
        super().connection_lost(exc)

    def _consume(self, data: memoryview) -> memoryview:
        """Take the next bytes and return those that belong to what follows."""
        if self.protocol.state is not OPEN or not self._framed:
            data, self._start = memoryview(self._start + data), b""
            self._framed = self.protocol.state is not OPEN and data[-4:] == HANDSHAKE_END
            self.data_received(bytes(data))
            return data[:0]
        if not self._left:
            if self._start:
                data, self._start = memoryview(self._start + data), b""
            head = head_of(data)
            if head is None or len(data) < head.length + min(HEADER.size, head.size):
                self._start = bytes(data)
                return data[:0]
            start = data[head.length : head.length + HEADER.size]
            if not self._let_in(head, start):
                self._start, self._held = bytes(data), True
                self.transport.pause_reading()
                return data[:0]
            self._filling = self._place(head, start)
            if self._filling is not None:
                return self._begin(self._filling, data[head.length + self._filling.skip :])
            self._left = head.length + head.size
        part = data[: self._left]
        self._left -= len(part)
        self.data_received(bytes(part))
        return data[len(part) :]

    def _begin(self, filling: _Filling, data: memoryview) -> memoryview:
        """Move what came with a frame's head to its place; return what is beyond the frame."""
        room = filling.rest
        part = data[: len(room)]
        room[: len(part)] = part
        self._advance(filling, len(part))
        return data[len(part) :]

    def _advance(self, filling: _Filling, size: int) -> None:
        self.heard()
        if filling.advance(size):
            self._filling = None
            filling.done()

    # What has a place.

    def _place(self, head: Head, start: memoryview) -> _Filling | None:
        """Return where a frame's payload goes; None: to the library, as it is."""
        if bool(head.mask) is (self.protocol.side is CLIENT) or head.size > LARGEST_FRAME:
            return None
        if head.opcode == CONTINUATION and self._fragments is not None:
            return self._fragment(head, self._fragments)
        if head.opcode != BINARY or self._fragments is not None:
            return None
        if not head.fin:
            if self.lend is None:
                return None
            self._fragments = Fragments(self.lend)
            return self._fragment(head, self._fragments)
        if head.size < SMALLEST or head.size > (self.protocol.max_message_size or LARGEST_FRAME):
            return None
        if is_piece(begun := _unmasked(head, start)):
            return self._piece(head, begun)
        memory = np.empty(head.size, np.uint8).data
        return _Filling(head, memory, lambda: self._deliver(memory))

    def _let_in(self, head: Head, start: memoryview) -> bool:
        """Return whether a frame may be read now; False: it waits at the gate."""
        if self.gate is None or self._entering is not None or not SMALLEST <= head.size <= LARGEST_FRAME:
            return True
        if head.opcode != BINARY or not head.fin or is_piece(_unmasked(head, start)):
            return True
        self._entering = self.gate.enter(head.size, self._opened)
        return self._entering is not None

    def _opened(self, ticket: Ticket) -> None:
        """Read on: there is room for the message that waits."""
        if self._lost:
            ticket.leave()
            return
        self._entering, self._held = ticket, False
        data, self._start = memoryview(self._start), b""
        while data:
            data = self._consume(data)
        if not (self._held or self.recv_messages.paused):
            self.transport.resume_reading()

    def _piece(self, head: Head, start: bytes) -> _Filling | None:
        """Return the place of the next piece of an upload; stale and odd ones have none."""
        incoming = self.upload()
        place = None if incoming is None else incoming.place(start, head.size - HEADER.size)
        if incoming is None or place is None:
            return None

        def done() -> None:
            incoming.advance(len(place))
            if incoming.complete:
                self._deliver(incoming)

        return _Filling(head, place, done, skip=HEADER.size)

    def _fragment(self, head: Head, fragments: Fragments) -> _Filling | None:
        """Return the place of the next fragment."""

        def done() -> None:
            try:
                fragments.advance()
                if head.fin:
                    self._fragments = None
                    self._deliver(fragments.finish())
            except ProtocolError as error:
                self._fragments = None
                self._deliver(error)

        try:
            return _Filling(head, fragments.place(head.size), done)
        except ProtocolError as error:
            self._fragments = None
            self._deliver(error)
            return None

    def _deliver(self, item: Item) -> None:
        ticket, self._entering = self._entering, None
        if ticket is not None:
            ticket.arrived()
        self._placed.append((item, ticket))
        self.process_event(Frame(Opcode.BINARY, self._turn))

    # Writing.

    async def transmit(self, item: Encoded | Parts) -> None:
        """Send a message, or a piece of one. Raises ConnectionClosed."""
        if isinstance(item, Encoded) and item.small:
            await self._send_small(item)
            return
        if not self._unpaced:
            self._unpaced = True
            unpace_loopback(self)
        await self.send_frames(item.frames() if isinstance(item, Encoded) else iter([item]))

    async def _send_small(self, item: Encoded) -> None:
        """Send a message of one frame; a server's is the same for all, and wakes each of them up once."""
        if self.protocol.side is CLIENT:
            await self.send_frames(item.frames())
        else:
            await self._write([item.framed(head_bytes(BINARY, fin=True, size=item.size))])

    async def send_frames(self, frames: Iterator[Parts]) -> None:
        """Send a message, each of its frames from the parts that it has. Raises ConnectionClosed."""
        opcode, parts = BINARY, next(frames, None)
        while parts is not None:
            following = next(frames, None)
            await self._send_frame(opcode, parts, fin=following is None)
            opcode, parts = CONTINUATION, following

    async def _send_frame(self, opcode: int, parts: Parts, *, fin: bool) -> None:
        mask = secrets.token_bytes(4) if self.protocol.side is CLIENT else b""
        head = head_bytes(opcode, fin=fin, size=sum(len(part) for part in parts), mask=mask)
        await self._write(masked(head, parts, mask) if mask else plain(head, parts))

    async def _write(self, blocks: Iterable[Buffer]) -> None:
        """Write a frame."""
        if self.protocol.state is not OPEN:
            await self._closed()
        self._sending = True
        try:
            for block in blocks:
                self.transport.write(block)
                await self.drain()
                if self.connection_lost_waiter.done():
                    await self._closed()
        except OSError as error:
            self.set_connection_exc(error)
            await self._closed()
        except asyncio.CancelledError:
            # Nothing can be said after half a frame.
            self.transport.abort()
            raise
        self._sending = False
        self.send_data()

    def reassure(self) -> None:
        """Where the other side is not read, take that for its silence and give it a sign of life: its pings
        wait like all else that it sends. A pong that nobody asked for is one (RFC 6455, section 5.5.3).
        """
        if self.protocol.state is OPEN and not self.transport.is_reading():
            self.heard()
            self.protocol.send_pong(b"")
            self.send_data()

    def send_data(self) -> None:
        """See Connection: what the library has to say waits for the end of a frame."""
        if not self._sending:
            super().send_data()

    async def _closed(self) -> NoReturn:
        await asyncio.shield(self.connection_lost_waiter)
        raise self.close_exc


class ServerStream(Stream, ServerConnection):
    """A connection of the aggregator."""


class ClientStream(Stream, ClientConnection):
    """A connection of a worker."""

    async def receive(self) -> Buffer:
        """See `Stream.receive`; an aggregator sends no pieces."""
        item = await super().receive()
        return item.data if isinstance(item, Incoming) else item

    def process_event(self, event: Event) -> None:
        """See Connection: whatever frame it is, the aggregator lives."""
        self.heard()
        super().process_event(event)


def _unmasked(head: Head, start: memoryview) -> bytes:
    clear = memoryview(bytearray(start))
    if head.mask:
        Mask(head.mask).apply(clear, clear, 0)
    return bytes(clear)
