"""Messages as bytes and back: a small msgpack header with a table of tensors, then the tensors' raw bytes.

    "ENG1" | header length (uint32) | header | zeros to a multiple of 16 | tensor | zeros | tensor | ...

A header is [kind, {field: value}, [table, ...]]; a field that holds tensors names tables by index.
Everything is little-endian. No deserialiser that could run code takes part, every length is checked before
memory is taken, and whatever is odd raises ProtocolError.

`Shared` groups are addressed by content: one that a connection has already carried goes as its digest only.
Encoder and decoder of a connection keep the same memory of groups, because they see the same messages in the
same order; a new connection starts with an empty memory on both sides. So it is with the weights of orders
under compression: what the last order of a connection carried is not said again, only what has changed since.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_type_hints

import msgpack
import numpy as np

from engram.errors import ProtocolError, RefusedError
from engram.federation.carried import Carried, Digests
from engram.federation.compression.arrays import Malformed
from engram.federation.compression.broadcast import Model
from engram.federation.compression.changes import unpack_order
from engram.federation.fields import mapping, plain
from engram.federation.messages import (
    ClassCounts,
    Consolidate,
    Down,
    Evaluate,
    Hello,
    LabelCounts,
    Message,
    Order,
    Shared,
    Tensors,
    Train,
    Up,
    Update,
)
from engram.federation.tensors import (
    ALIGNMENT,
    Buffer,
    Tables,
    TensorReader,
    buffers_of,
    rows_of,
    size_of_table,
)
from engram.federation.versions import refusal

MAGIC = b"ENG1"
MAX_HEADER = 4 * 1024 * 1024
"""Bytes of a header. What msgpack makes of a hostile one takes up to a hundred MiB for a moment."""
CHUNK = 1024 * 1024 - 16
"""Bytes of a large message that travel together: with a piece's header the largest frame that there is."""
JOINED = 256 * 1024
"""Messages of up to so many bytes are put into one piece."""

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}
FIELDS: dict[str, dict[str, Any]] = {name: get_type_hints(kind) for name, kind in KINDS.items()}
UP = frozenset(kind.__name__ for kind in get_args(Up))
DOWN = frozenset(kind.__name__ for kind in get_args(Down))
UPDATE_HEADER: bytes = b"\x93" + msgpack.packb(Update.__name__)
"""How our own encoder begins an update's header: a list of three, its kind."""
ORDERS = frozenset(kind.__name__ for kind in get_args(Order))


Received = TypeVar("Received", bound=Message)
Parts: TypeAlias = Sequence[Buffer]
"""Bytes that stand in several places, in their order."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A message as pieces of bytes; large ones are views of the tensors, so nothing is copied until sent."""

    parts: tuple[Buffer, ...]
    size: int

    def frames(self) -> Iterator[Parts]:
        """Yield the bytes of a frame each: one of a small message, whose parts are joined once."""
        return iter([[self._joined]]) if self.small else self.cuts()

    @property
    def small(self) -> bool:
        """Whether it goes in one frame, its parts joined."""
        return self.size <= min(JOINED, CHUNK)

    def cuts(self) -> Iterator[Parts]:
        """Yield views of all bytes in lists of CHUNK bytes each, the last one of fewer."""
        cut: list[Buffer] = []
        room = CHUNK
        for part in self.parts:
            view = memoryview(part)
            while view:
                taken = view[:room]
                cut.append(taken)
                view, room = view[len(taken) :], room - len(taken)
                if not room:
                    yield cut
                    cut, room = [], CHUNK
        if cut:
            yield cut

    def framed(self, head: bytes) -> bytes:
        """Return all bytes in one piece behind the head of a frame: put together once for all connections."""
        if head not in self._framed:
            self._framed[head] = b"".join((head, *self.parts))
        return self._framed[head]

    @cached_property
    def _framed(self) -> dict[bytes, bytes]:
        return {}

    @cached_property
    def _joined(self) -> bytes:
        return self.join()

    def join(self) -> bytes:
        """Return all bytes in one piece."""
        return b"".join(self.parts)


class Common:
    """What the connections of a process need not work out each by itself: digests, and the last order."""

    def __init__(self) -> None:
        self.digests = Digests()
        self._last: tuple[Message, Tensors | None, Encoded] | None = None

    def find(self, message: Message, model: Tensors | None) -> Encoded | None:
        """Return the bytes of an order that another connection has sent and that is the same here.

        It is when it carries no shared groups: of those each connection has others. `model` is what this
        connection has carried.
        """
        if self._last is None or not isinstance(message, Train | Consolidate | Evaluate):
            return None
        last, known, encoded = self._last
        if type(last) is not type(message) or last.weights is not message.weights or message.shared:
            return None
        if known is not model:
            return None
        return encoded if replace(message, weights={}) == replace(last, weights={}) else None

    def keep(self, message: Message, model: Tensors | None, encoded: Encoded) -> None:
        """Remember an order that may go to others too."""
        if isinstance(message, Train | Consolidate | Evaluate) and not message.shared:
            self._last = message, model, encoded


class Encoder:
    """Encodes what one side of one connection sends."""

    def __init__(self, common: Common | None = None) -> None:
        self._carried = Carried()
        self._model: Tensors | None = None
        """What the last order carried, under compression."""
        self._common = common or Common()

    def encode(self, message: Message) -> Encoded:
        """Return the bytes of `message`. Raises ProtocolError when it holds what may not travel."""
        kind = type(message).__name__
        encoded = self._common.find(message, self._model)
        if encoded is None:
            encoded = self._encode(kind, message)
            self._common.keep(message, self._model, encoded)
        if isinstance(message, Train | Consolidate | Evaluate):
            self._model = message.weights.plain if isinstance(message.weights, Model) else None
        if Shared in FIELDS[kind].values():
            self._carried.end_of_order()
        return encoded

    def _encode(self, kind: str, message: Message) -> Encoded:
        tables: list[list[Any]] = []
        buffers: list[Buffer] = []
        values = {
            name: self._value(hint, getattr(message, name), tables, buffers)
            for name, hint in FIELDS[kind].items()
        }
        header = msgpack.packb([kind, values, tables], use_bin_type=True, default=_native)
        if len(header) > MAX_HEADER:
            raise ProtocolError(f"the header of {kind} has {len(header)} bytes, more than {MAX_HEADER}")
        start = MAGIC + struct.pack("<I", len(header)) + header
        start += bytes(-len(start) % ALIGNMENT)
        return Encoded((start, *buffers), len(start) + sum(len(buffer) for buffer in buffers))

    def _value(self, hint: Any, value: Any, tables: list[list[Any]], buffers: list[Buffer]) -> Any:
        if isinstance(value, Model) and self._model is not None:
            since = value.since(self._model)
            if since is not None:
                return [self._add(since, tables, buffers)]
        if hint == Tensors:
            return self._add(value, tables, buffers)
        if hint == Shared:
            return {name: self._group(group, tables, buffers) for name, group in value.items()}
        if hint is ClassCounts:
            return [dict(value.right), dict(value.total), dict(value.right_unseen)]
        if hint is LabelCounts:
            return [dict(value.labelled), dict(value.unlabelled)]
        return dict(value) if isinstance(value, Mapping) else value

    def _group(self, group: Tensors, tables: list[list[Any]], buffers: list[Buffer]) -> list[Any]:
        digest = self._common.digests.of(group)
        if self._carried.find(digest) is not None:
            return [digest]
        self._carried.remember(digest, {})
        return [digest, self._add(group, tables, buffers)]

    @staticmethod
    def _add(tensors: Tensors, tables: list[list[Any]], buffers: list[Buffer]) -> int:
        tables.append(rows_of(tensors))
        buffers.extend(buffers_of(tensors))
        return len(tables) - 1


class Decoder(Generic[Received]):
    """Decodes what one side of one connection receives; `kinds` are the messages it may receive."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._kinds = kinds
        self._carried = Carried()
        self._model: Tensors | None = None
        """What the last order carried."""
        self._tables = Tables()

    def decode(self, data: bytes | bytearray | memoryview) -> Received:
        """Return the message; its arrays are read-only views of `data`.

        Raises ProtocolError, and RefusedError for the hello of another version.
        """
        view = memoryview(data)
        length = _header_length(view)
        if 8 + length > len(view):
            raise ProtocolError("a message's header is longer than the message")
        kind, values, tables = self._header(view[8 : 8 + length])
        reader = TensorReader(view, 8 + length + -(8 + length) % ALIGNMENT, self._tables)
        groups = [reader.read(table) for table in tables]
        reader.finish()
        hints = FIELDS[kind]
        if values.keys() != hints.keys():
            if kind == Hello.__name__:
                other = refusal(values.get("worker"), values.get("version"), values.get("protocol"))
                if other is not None:
                    raise RefusedError(other)
            raise ProtocolError(f"{kind} has other fields than {', '.join(hints)}")
        fields = {name: self._field(f"{kind}.{name}", hints[name], values[name], groups) for name in hints}
        if Shared in hints.values():
            self._carried.end_of_order()
        if kind in ORDERS:
            self._model = fields["weights"]
        message: Received = KINDS[kind](**fields)
        return message

    def _header(self, data: memoryview) -> tuple[str, dict[str, Any], list[Any]]:
        kind, values, tables = _unpacked(data)
        if not isinstance(kind, str) or kind not in self._kinds:
            raise ProtocolError(f"a message of kind {str(kind)[:40]!r} is not expected here")
        if not isinstance(values, dict):
            raise ProtocolError("a message's header is not [kind, fields, tables]")
        return kind, values, tables

    def _field(self, where: str, hint: Any, value: Any, groups: list[Tensors]) -> Any:
        if hint == Tensors:
            return self._since(where, value[0], groups) if _is_change(value) else _table(where, value, groups)
        if hint == Shared:
            return self._shared(where, value, groups)
        return plain(where, hint, value)

    def _since(self, where: str, value: object, groups: list[Tensors]) -> Tensors:
        """Return the weights of the last order with what has changed since."""
        if self._model is None:
            raise ProtocolError(f"{where}: a change of a model that was never sent on this connection")
        try:
            return unpack_order(_table(where, value, groups), self._model)
        except Malformed as error:
            raise ProtocolError(f"{where}: {error}") from error

    def _shared(self, where: str, value: object, groups: list[Tensors]) -> dict[str, Tensors]:
        shared: dict[str, Tensors] = {}
        for name, entry in mapping(where, value).items():
            if not isinstance(name, str) or not isinstance(entry, list) or len(entry) not in (1, 2):
                raise ProtocolError(f"{where}: a group is not name: [digest, table]")
            digest = entry[0]
            if not isinstance(digest, bytes) or len(digest) != 32:
                raise ProtocolError(f"{where}: a group's digest has not 32 bytes")
            if len(entry) == 2:
                self._carried.remember(digest, _table(where, entry[1], groups))
            found = self._carried.find(digest)
            if found is None:
                raise ProtocolError(f"{where}: a group was never sent on this connection")
            shared[name] = found
        return shared


def looks_like_update(data: Buffer) -> bool:
    """Return whether `data` begins as an update does: a guess for who has to know before it is decoded."""
    return bytes(data[8 : 8 + len(UPDATE_HEADER)]) == UPDATE_HEADER


def size_in_start(data: Buffer) -> int | None:
    """Return the bytes of the message that `data` is the start of; None while its header is not complete.

    Raises ProtocolError.
    """
    view = memoryview(data)
    length = _header_length(view)
    if 8 + length > len(view):
        return None
    tables = _unpacked(view[8 : 8 + length])[2]
    start = 8 + length
    return start + -start % ALIGNMENT + sum(size_of_table(table) for table in tables)


def size_of(message: Message) -> int:
    """Return the bytes that `message` takes on a fresh connection."""
    return Encoder().encode(message).size


def _header_length(view: memoryview) -> int:
    if len(view) < 8 or view[:4] != MAGIC:
        raise ProtocolError("these bytes are no message of the engram protocol")
    length: int = struct.unpack("<I", view[4:8])[0]
    if length > MAX_HEADER:
        raise ProtocolError("a message's header is longer than its limit")
    return length


def _unpacked(data: memoryview) -> tuple[Any, Any, list[Any]]:
    try:
        header = msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise ProtocolError("a message's header cannot be read") from error
    if not isinstance(header, list) or len(header) != 3 or not isinstance(header[2], list):
        raise ProtocolError("a message's header is not [kind, fields, tables]")
    return header[0], header[1], header[2]


def _native(value: object) -> object:
    """Return numpy's scalars as Python's: learners count in numpy."""
    if isinstance(value, np.generic):
        return value.item()
    raise ProtocolError(f"a value of type {type(value).__name__} may not travel")


def _is_change(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1


def _table(where: str, value: object, groups: list[Tensors]) -> Tensors:
    if type(value) is not int or not 0 <= value < len(groups):
        raise ProtocolError(f"{where} names a table that is not there")
    return groups[value]
