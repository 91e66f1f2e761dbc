"""The head of a WebSocket frame and the mask of its payload (RFC 6455, section 5.2), for frames that the
library does not see, and how they are written.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from engram.federation.codec import Parts
from engram.federation.tensors import Buffer

CONTINUATION, BINARY = 0, 2
"""Opcodes of data frames that are no text."""
FIN, RESERVED, OPCODE, MASKED = 0x80, 0x70, 0x0F, 0x80
WORD = 8
"""Bytes that are masked at once."""
WRITE = 256 * 1024
"""Bytes that are written at once: they stay in the processor's cache from the mask to the kernel."""
JOINED = 16 * 1024
"""Parts of up to so many bytes are written together with their neighbours."""
HEAD_ROOM = 16
"""Bytes for a frame's head in front of what is masked; a multiple of a word."""


class Head(NamedTuple):
    """What stands in front of a frame's payload."""

    opcode: int
    """With the reserved bits, so that a frame of an extension has no opcode that is known here."""
    fin: bool
    size: int
    """Bytes of the payload."""
    mask: bytes
    """Four bytes; none when the payload is not masked."""
    length: int
    """Bytes of the head itself."""


def head_of(data: Buffer) -> Head | None:
    """Return the head that `data` begins with; None while it is not all there."""
    if len(data) < 2:
        return None
    size, length = data[1] & ~MASKED, 2
    if size >= 126:
        length = 4 if size == 126 else 10
        if len(data) < length:
            return None
        size = int.from_bytes(data[2:length], "big")
    mask = b""
    if data[1] & MASKED:
        mask = bytes(data[length : length + 4])
        length += 4
        if len(data) < length:
            return None
    return Head(data[0] & (RESERVED | OPCODE), bool(data[0] & FIN), size, mask, length)


def head_bytes(opcode: int, *, fin: bool, size: int, mask: bytes = b"") -> bytes:
    """Return the head of a frame."""
    first, masked = opcode | (FIN if fin else 0), MASKED if mask else 0
    if size < 126:
        return struct.pack("!BB", first, masked | size) + mask
    if size < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, size) + mask
    return struct.pack("!BBQ", first, masked | 127, size) + mask


class Mask:
    """Masks or unmasks a payload that comes in parts; words at a time, in place or on the way to a copy."""

    def __init__(self, key: bytes) -> None:
        self._key = key * (WORD // len(key))
        self._word = np.uint64(int.from_bytes(self._key, sys.byteorder))

    def apply(self, source: Buffer, target: memoryview, start: int) -> None:
        """Write `source`, which begins `start` bytes into the payload, to `target`; both may be the same."""
        whole = len(source) - len(source) % WORD
        if whole:
            words = np.frombuffer(source, np.uint64, whole // WORD)
            np.bitwise_xor(words, self._turned(start), out=np.frombuffer(target, np.uint64, whole // WORD))
        for position in range(whole, len(source)):
            target[position] = source[position] ^ self._key[(start + position) % WORD]

    def _turned(self, start: int) -> np.uint64:
        """Return the word to apply from byte `start` on."""
        turn = start % len(self._key)
        if not turn:
            return self._word
        return np.uint64(int.from_bytes(self._key[turn:] + self._key[:turn], sys.byteorder))


def plain(head: bytes, parts: Parts) -> Iterator[Buffer]:
    """Yield what to write for a frame: small parts are joined with what follows them."""
    small = bytearray(head)
    for part in parts:
        view = memoryview(part)
        if small:
            small += view[:JOINED]
            view = view[JOINED:]
        if view:
            yield bytes(small)
            small.clear()
        for start in range(0, len(view), WRITE):
            yield view[start : start + WRITE]
    if small:
        yield bytes(small)


def masked(head: bytes, parts: Parts, key: bytes) -> Iterator[Buffer]:
    """Yield what to write for a frame whose payload is masked, in memory that is written again and again."""
    size = min(WRITE, sum(len(part) for part in parts))
    mask, scratch = Mask(key), np.empty(HEAD_ROOM + size, np.uint8).data
    begin, end, done = HEAD_ROOM - len(head), HEAD_ROOM, 0
    scratch[begin:end] = head
    for part in parts:
        view = memoryview(part)
        while view:
            taken = view[: len(scratch) - end]
            mask.apply(taken, scratch[end : end + len(taken)], done)
            end, done, view = end + len(taken), done + len(taken), view[len(taken) :]
            if end == len(scratch):
                yield scratch[begin:end]
                begin = end = HEAD_ROOM
    if begin < end:
        yield scratch[begin:end]
