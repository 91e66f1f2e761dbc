"""Large messages in pieces, and the memory that they are put together in.

    "ENGP" | offer's number (uint32) | offset (uint64) | bytes

A message is written to where it is read later, once; the memory is used again when nobody looks at it any
more.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import ProtocolError
from engram.federation.tensors import Buffer

MAGIC = b"ENGP"
HEADER = struct.Struct("<4sIQ")
Bytes = NDArray[np.uint8]


def is_piece(data: Buffer) -> bool:
    """Return whether `data` is part of a message, not a whole one."""
    return data[:4] == MAGIC


def pieces_of(number: int, parts: Iterator[Buffer]) -> Iterator[bytes]:
    """Yield the pieces of the message that offer `number` announced, from its bytes in order."""
    offset = 0
    for part in parts:
        yield b"".join((HEADER.pack(MAGIC, number, offset), part))
        offset += len(part)


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

    def add(self, part: Buffer) -> None:
        """Write the next bytes. Raises ProtocolError when they are more than announced."""
        end = self._filled + len(part)
        if end > len(self._view):
            raise ProtocolError(f"more bytes than the {len(self._view)} that were announced")
        self._view[self._filled : end] = part
        self._filled = end

    def take(self, piece: bytes, now: float) -> bool:
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


def header_of(piece: bytes) -> tuple[int, int]:
    """Return a piece's number and offset. Raises ProtocolError when it is too short."""
    if len(piece) <= HEADER.size:
        raise ProtocolError("a piece of a message without bytes")
    _, number, offset = HEADER.unpack_from(piece)
    return number, offset
