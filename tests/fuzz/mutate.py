"""Mutants of good bytes: blind ones, and those that keep the outer form so that they get further in."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgpack

from engram.federation.codec import KINDS, MAGIC
from engram.federation.tensors import ALIGNMENT, DTYPES

Mutator: TypeAlias = Callable[[random.Random, bytes], bytes]

BYTES = (0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF)
"""Ends of ranges, and msgpack's marks of what has a length."""
INTEGERS = (-1, 0, 1, 2, 7, 127, 128, 65536, 2**31 - 1, 2**31, 2**40, 2**53 - 1, 2**53, 2**63, 2**64 - 1)
TEXTS = ("", "w", "object", "O", "<f4", "float32 ", "\0", "\ud7ff", "x" * 600, "é" * 70_000, *DTYPES, *KINDS)
LENGTHS = (0, 1, 16, 2**16, 4 * 2**20, 4 * 2**20 + 1, 2**31, 2**32 - 1)
SPECIAL = (math.nan, math.inf, -math.inf, 3e38, -0.0, 1e-45)


def blind(rng: random.Random, data: bytes) -> bytes:
    """Change, move, drop or add a few bytes anywhere."""
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        place = rng.randrange(len(mutant) + 1)
        match rng.randrange(7):
            case 0 if place < len(mutant):
                mutant[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(mutant):
                mutant[place] = rng.choice(BYTES)
            case 2:
                del mutant[place : place + rng.choice((1, 2, 4, 16, 64))]
            case 3:
                mutant[place:place] = rng.randbytes(rng.choice((1, 2, 4, 16, 64)))
            case 4:
                start = rng.randrange(len(mutant) + 1)
                mutant[place:place] = mutant[start : start + rng.choice((1, 4, 16, 64))]
            case 5:
                del mutant[place:]
            case _:
                mutant += bytes(rng.choice((1, 15, 16, 4096)))
    return bytes(mutant)


def lengths(rng: random.Random, data: bytes) -> bytes:
    """Lie about the length of the header."""
    return data[:4] + struct.pack("<I", rng.choice(LENGTHS)) + data[8:]


def header(rng: random.Random, data: bytes) -> bytes:
    """Change parts of the header or of the table, and keep everything else as it belongs together."""
    length = struct.unpack("<I", data[4:8])[0]
    start = 8 + length
    document = msgpack.unpackb(data[8:start], strict_map_key=False)
    body = data[start + -start % ALIGNMENT :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = _changed(rng, document)
    return joined(document, body if rng.random() < 0.8 else blind(rng, body))


def numbers(rng: random.Random, data: bytes) -> bytes:
    """Put numbers that are none, or very large, among the tensors."""
    mutant = bytearray(data)
    start = 8 + struct.unpack("<I", data[4:8])[0]
    start += -start % ALIGNMENT
    for _ in range(rng.choice((1, 2, 8))):
        places = range(start, len(mutant) - 3, 4)
        if places:
            place = rng.choice(places)
            mutant[place : place + 4] = struct.pack("<f", rng.choice(SPECIAL))
    return bytes(mutant)


def joined(document: object, body: bytes) -> bytes:
    """Return a message of any header and any body."""
    text: bytes = msgpack.packb(document, use_bin_type=True)
    start = MAGIC + struct.pack("<I", len(text)) + text
    return start + bytes(-len(start) % ALIGNMENT) + body


OF_MESSAGES: Sequence[Mutator] = (blind, lengths, header, header, header, numbers)


def of_request(rng: random.Random, data: bytes) -> bytes:
    """Change the handshake's lines, or its bytes."""
    lines = data.split(b"\r\n")
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        name, _, value = lines[place].partition(b": ")
        match rng.randrange(8):
            case 0:
                del lines[place]
                lines = lines or [b""]
            case 1:
                lines.insert(place, lines[rng.randrange(len(lines))])
            case 2:
                lines[place] = name + b": " + value * rng.choice((2, 100, 2000))
            case 3:
                lines[place] = name + b": " + rng.randbytes(rng.choice((1, 16, 64)))
            case 4:
                lines[place:place] = [b"X-%d: y" % index for index in range(rng.choice((1, 100, 300)))]
            case 5:
                lines[place] = name + b": " + value[: rng.randrange(len(value) + 1)]
            case 6:
                lines[place] = rng.choice((b"GET /", b"POST /v1/federation", b"\xff\xfe", b"A" * 9000, name))
            case _:
                return blind(rng, b"\r\n".join(lines))
    return b"\r\n".join(lines)


def _changed(rng: random.Random, value: Any) -> Any:
    """Return `value` with one part, itself or deep inside, replaced, dropped or doubled."""
    inner = isinstance(value, list | dict) and len(value) > 0
    if not inner or rng.random() < 0.1:
        return _odd(rng)
    if isinstance(value, dict):
        result = dict(value)
        key = rng.choice(list(result))
        match rng.randrange(6):
            case 0:
                del result[key]
            case 1:
                result[rng.choice((*INTEGERS, *TEXTS))] = result[key]
            case _:
                result[key] = _changed(rng, result[key])
        return result
    items = list(value)
    place = rng.randrange(len(items))
    match rng.randrange(6):
        case 0:
            del items[place]
        case 1:
            items.insert(place, items[rng.randrange(len(items))])
        case _:
            items[place] = _changed(rng, items[place])
    return items


def _odd(rng: random.Random) -> Any:
    """Return a value that a header should not have there."""
    match rng.randrange(9):
        case 0 | 1 | 2:
            return rng.choice(INTEGERS)
        case 3:
            return rng.choice(TEXTS)
        case 4:
            return rng.choice(SPECIAL)
        case 5:
            return rng.choice((None, True, False, b"", b"\0" * 32, [], {}))
        case 6:
            return [_odd(rng) for _ in range(rng.choice((1, 2, 3, 9)))]
        case 7:
            return {rng.choice(TEXTS): _odd(rng), rng.choice(INTEGERS): 1}
        case _:
            deep: Any = 0
            for _ in range(rng.choice((3, 100, 400))):
                deep = [deep]
            return deep
