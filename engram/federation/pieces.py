"""Large messages in pieces, and the memory that they are put together in.

    "ENGP" | offer's number (uint32) | offset (uint64) | bytes

A message is written to where it is read later, once; the memory is used again when nobody looks at it any
more.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import ProtocolError
from engram.federation.codec import Parts, size_in_start
from engram.federation.tensors import Buffer

MAGIC = b"ENGP"
HEADER = struct.Struct("<4sIQ")
START = 8
"""Bytes that tell how long a message's header is."""
Bytes = NDArray[np.uint8]


class TooLarge(ProtocolError):
    """An answer is offered that is larger than any can be."""


def is_piece(data: Buffer) -> bool:
    """Return whether `data` is part of a message, not a whole one."""
    return data[:4] == MAGIC


def pieces_of(number: int, cuts: Iterator[Parts]) -> Iterator[Parts]:
    """Yield the pieces of the message that offer `number` announced, from its bytes in order."""
    offset = 0
    for cut in cuts:
        yield [HEADER.pack(MAGIC, number, offset), *cut]
        offset += sum(len(part) for part in cut)


class Room:
    """Lends memory, and lends it again once the borrower and all views of it are gone."""

    def __init__(self, keep: int) -> None:
        """Keep up to `keep` pieces of memory that nobody uses."""
        self._keep = keep
        self._free: list[Bytes] = []
        self._lent: dict[int, weakref.ref[Any]] = {}

    def lend(self, size: int) -> Bytes:
        """Return `size` writable bytes of any content."""
        fitting = [memory for memory in self._free if memory.size >= size]
        if fitting:
            memory = min(fitting, key=lambda found: found.size)
            self._free = [kept for kept in self._free if kept is not memory]
        else:
            # What is too small now would stay so: a model only grows.
            self._free.clear()
            memory = np.empty(size, np.uint8)
        lent = memory[:size]
        self._lent[id(memory)] = weakref.ref(lent, partial(self._returned, memory))
        return lent

    def _returned(self, memory: Bytes, reference: weakref.ref[Any]) -> None:
        self._lent.pop(id(memory), None)
        if len(self._free) < self._keep:
            self._free.append(memory)


class Incoming:
    """A message of known size that comes in pieces, or in parts, one after the other."""

    def __init__(self, number: int, memory: Bytes, now: float) -> None:
        self.number = number
        self.heard = now
        """When the last piece came."""
        self._view = memory.data
        self._filled = 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self._filled == len(self._view)

    @property
    def data(self) -> memoryview:
        """The whole message."""
        return self._view

    def forget(self) -> None:
        """Let the memory go: the message was read."""
        self._view, self._filled = memoryview(b""), 0

    def room(self, size: int) -> memoryview:
        """Return where the next bytes go. Raises ProtocolError when they are more than announced."""
        end = self._filled + size
        if end > len(self._view):
            raise ProtocolError(f"more bytes than the {len(self._view)} that were announced")
        return self._view[self._filled : end]

    def add(self, part: Buffer) -> None:
        """Write the next bytes. Raises ProtocolError when they are more than announced."""
        self.room(len(part))[:] = part
        self.advance(len(part))

    def place(self, piece: bytes, size: int) -> memoryview | None:
        """Return where the `size` bytes of a piece go that begins with `piece`; None when `take` would not
        just write them.
        """
        number, offset = numbers_of(piece)
        end = offset + size
        fits = number == self.number and offset == self._filled and end <= len(self._view) and size > 0
        return self._view[offset:end] if fits else None

    def advance(self, size: int) -> None:
        """Note that the next bytes have been written to their place."""
        self._filled += size

    def take(self, piece: Buffer, now: float) -> bool:
        """Write a piece; False: it belongs to an offer that has lost its room.

        Raises ProtocolError for a piece that is not the next one.
        """
        number, offset = header_of(piece)
        if number != self.number:
            return False
        if offset != self._filled or self.complete:
            raise ProtocolError(f"a piece from byte {offset} instead of {self._filled}")
        self.add(memoryview(piece)[HEADER.size :])
        self.heard = now
        return True


class Fragments:
    """A message in fragments of a WebSocket; what its start says of its size is lent by `lend`."""

    def __init__(self, lend: Callable[[int], Bytes]) -> None:
        self._lend = lend
        self._start = b""
        self._place = memoryview(b"")
        self._incoming: Incoming | None = None

    def place(self, size: int) -> memoryview:
        """Return where the next `size` bytes go. Raises ProtocolError when they are more than announced."""
        if self._incoming is None:
            self._place = np.empty(size, np.uint8).data
        else:
            self._place = self._incoming.room(size)
        return self._place

    def advance(self) -> None:
        """Note that they have been written. Raises ProtocolError for the start of what is no message."""
        if self._incoming is not None:
            self._incoming.advance(len(self._place))
            return
        self._start += bytes(self._place)
        size = size_in_start(self._start) if len(self._start) >= START else None
        if size is not None:
            self._incoming = Incoming(0, self._lend(size), 0.0)
            self._incoming.add(self._start)

    def finish(self) -> memoryview:
        """Return the whole message. Raises ProtocolError when it is not whole."""
        if self._incoming is None or not self._incoming.complete:
            raise ProtocolError("a message is cut short")
        return self._incoming.data


def header_of(piece: Buffer) -> tuple[int, int]:
    """Return a piece's number and offset. Raises ProtocolError when it is too short."""
    if len(piece) <= HEADER.size:
        raise ProtocolError("a piece of a message without bytes")
    return numbers_of(piece)


def numbers_of(header: Buffer) -> tuple[int, int]:
    """Return the number and the offset in a piece's header."""
    _, number, offset = HEADER.unpack_from(header)
    return number, offset
