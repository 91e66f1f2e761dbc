"""What a worker's updates have not said yet, kept until the aggregator has a newer update of it.

An order says which update of this worker is the newest that counts; what was owed after that one is what the
next update adds. So an update that came too late, was refused or went back to the start with the aggregator
leaves no trace, and a round that is repeated gives the same bytes. A file is complete before its update is
sent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import struct
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from engram.errors import CheckpointError, ProtocolError
from engram.federation.durable import write_whole
from engram.federation.messages import Tensors
from engram.federation.tensors import ALIGNMENT, Buffer, TensorReader, buffers_of, rows_of

KEPT = 4
"""Residuals that are kept: of the round that goes out while the checkpoint of the one before is written, and
of the three that the aggregator may fall back by, when its newest checkpoint is damaged as well.
"""
FULL = (errno.ENOSPC, errno.EDQUOT)
MAGIC = b"ENGRAMR1"
DIGEST_BYTES = 32
NAME = re.compile(r"residual-(\d+)-(\d+)\.bin")

log = logging.getLogger(__name__)

Position: TypeAlias = tuple[int, int]
"""(task, round) of an update."""


class Residuals(Protocol):
    """Where a worker keeps what it owes."""

    def read(self, position: Position) -> Tensors | None:
        """Return what was owed after the update of `position`; None when that is lost."""
        ...

    def write(self, position: Position, owed: Tensors, counted: Position | None) -> None:
        """Keep what is owed after the update of `position`, and what was owed after `counted`.

        Newer ones are of a past that did not happen. Raises CheckpointError.
        """
        ...


def _outdated(known: list[Position], position: Position, counted: Position | None) -> list[Position]:
    """Return which of the `known` residuals are not kept once `position` is written."""
    past = sorted(found for found in known if counted is not None and found < position)
    kept = {position, counted, *past[-(KEPT - 1) :]}
    return [found for found in known if found not in kept]


class MemoryResiduals:
    """Residuals that end with the process."""

    def __init__(self) -> None:
        self._owed: dict[Position, Tensors] = {}

    def read(self, position: Position) -> Tensors | None:
        """See `Residuals.read`."""
        return self._owed.get(position)

    def write(self, position: Position, owed: Tensors, counted: Position | None) -> None:
        """See `Residuals.write`."""
        for old in _outdated(list(self._owed), position, counted):
            del self._owed[old]
        self._owed[position] = owed


class FileResiduals:
    """Residuals in a directory of the worker's own.

    What a full disk has no room for ends with the process: that costs the same bits where it is killed, while
    stopping would cost the run its worker.
    """

    def __init__(self, directory: Path, job_digest: str) -> None:
        """`job_digest` tells them from those of another job that used the directory before."""
        self._directory, self._digest = directory, job_digest
        self._without_room: dict[Position, Tensors] = {}

    def read(self, position: Position) -> Tensors | None:
        """See `Residuals.read`: what is damaged or of another job is lost."""
        if position in self._without_room:
            return self._without_room[position]
        try:
            return _parsed((self._directory / _name(position)).read_bytes(), self._digest)
        except (OSError, ValueError, KeyError, TypeError, struct.error, ProtocolError):
            return None

    def write(self, position: Position, owed: Tensors, counted: Position | None) -> None:
        """See `Residuals.write`."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for old in _outdated([*self._known(), *self._without_room], position, counted):
                (self._directory / _name(old)).unlink(missing_ok=True)
                self._without_room.pop(old, None)
            write_whole(self._directory / _name(position), _prepared(owed, self._digest))
            self._without_room.pop(position, None)
        except OSError as error:
            problem = f"{self._directory}: what compression owes cannot be kept: {error.strerror or error}"
            if error.errno not in FULL:
                raise CheckpointError(f"{problem}: give permission, or another directory") from error
            log.warning("%s: make room; it is lost if this process is killed", problem)
            self._without_room[position] = owed

    def _known(self) -> list[Position]:
        matches = (NAME.fullmatch(path.name) for path in self._directory.iterdir())
        return [(int(match[1]), int(match[2])) for match in matches if match is not None]


def _name(position: Position) -> str:
    return f"residual-{position[0]}-{position[1]}.bin"


def _prepared(owed: Tensors, job_digest: str) -> list[Buffer]:
    text = json.dumps({"job_digest": job_digest, "table": rows_of(owed)}).encode()
    start = MAGIC + struct.pack("<Q", len(text)) + text
    parts: list[Buffer] = [start + bytes(-len(start) % ALIGNMENT), *buffers_of(owed)]
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hasher.update(part)
    return [*parts, hasher.digest()]


def _parsed(data: bytes, job_digest: str) -> Tensors:
    """Return what a file holds. Raises what any damage brings, and ValueError for another job's."""
    body = memoryview(data)[:-DIGEST_BYTES]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != data[-DIGEST_BYTES:]:
        raise ValueError("its digest does not fit its content")
    (length,) = struct.unpack("<Q", body[8:16])
    meta: dict[str, Any] = json.loads(bytes(body[16 : 16 + length]))
    if body[:8] != MAGIC or meta["job_digest"] != job_digest:
        raise ValueError("of another job")
    reader = TensorReader(body, 16 + length + -(16 + length) % ALIGNMENT)
    owed = reader.read(meta["table"])
    reader.finish()
    return owed
