"""Named arrays as bytes: the table, its bounds, the digest. Shared by the wire codec and the checkpoint
file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import ProtocolError
from engram.federation import kernel
from engram.federation.messages import Tensors

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    )
}
"""Element types that may travel, all little-endian."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Their names: numpy works a name out anew every time it is asked."""

ALIGNMENT = 16
"""Every tensor starts at a multiple of this many bytes, so that it can be used in place."""

BLOCK = 1 << 17
"""Elements that are looked at at once."""
SMALL = 1 << 13
"""Tensors of up to so many elements are looked at together."""

MAX_NAME = 512
MAX_DIMENSIONS = 8
MAX_TENSORS = 65_536
MAX_ELEMENTS = 2**40

Row = list[Any]
"""[name, dtype, [dimensions]] in a table."""
Buffer = bytes | memoryview


def frozen(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Return read-only views of `tensors`, contiguous and little-endian; copies only what is neither."""
    result: dict[str, NDArray[Any]] = {}
    for name, array in tensors.items():
        view = np.ascontiguousarray(array, dtype=_dtype(array.dtype)).reshape(array.shape).view()
        view.flags.writeable = False
        result[name] = view
    return result


def rows_of(tensors: Tensors) -> list[Row]:
    """Return the table of `tensors`. Raises ProtocolError for a dtype that may not travel."""
    return [[name, _name(array.dtype), list(array.shape)] for name, array in tensors.items()]


def buffers_of(tensors: Tensors) -> list[Buffer]:
    """Return the raw bytes of `tensors` in order, each padded to ALIGNMENT; nothing large is copied."""
    buffers: list[Buffer] = []
    for array in tensors.values():
        if array.size == 0:
            continue
        flat = np.ascontiguousarray(array, dtype=_dtype(array.dtype)).reshape(-1)
        buffers.append(flat.view(np.uint8).data)
        if padding := -flat.nbytes % ALIGNMENT:
            buffers.append(bytes(padding))
    return buffers


def digest_of(tensors: Tensors) -> bytes:
    """Return 32 bytes that two groups share only when names, order, dtypes, shapes and contents are equal."""
    hasher = hashlib.blake2b(digest_size=32)
    hasher.update(repr(rows_of(tensors)).encode())
    for buffer in buffers_of(tensors):
        hasher.update(buffer)
    return hasher.digest()


def magnitude(array: NDArray[Any]) -> float:
    """Return the largest absolute value of a floating-point tensor; infinity when it holds a NaN or one.

    The extremes carry any NaN or infinity along. Both are taken of a block at a time, so that the second one
    finds it in the processor's cache, without a copy of the size of the tensor.
    """
    flat, found = array.reshape(-1), 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        highest, lowest = float(block.max()), float(block.min())
        if not (math.isfinite(highest) and math.isfinite(lowest)):
            return math.inf
        found = max(found, highest, -lowest)
    return found


def magnitudes(tensors: Tensors) -> dict[str, float]:
    """Return `magnitude` of each floating-point tensor."""
    found: dict[str, float] = {}
    names = []
    for name, array in tensors.items():
        if kernel.takes(array.dtype):
            found[name] = kernel.largest(array)
        elif array.dtype.kind == "f":
            names.append(name)
    for group in groups_of(tensors, names, BLOCK):
        if len(group) == 1:
            found[group[0]] = magnitude(tensors[group[0]])
            continue
        parts = [tensors[name].reshape(-1) for name in group]
        joined, starts = np.concatenate(parts), np.cumsum([0, *(part.size for part in parts[:-1])])
        tops = np.maximum(np.maximum.reduceat(joined, starts), -np.minimum.reduceat(joined, starts)).tolist()
        finite = [top if math.isfinite(top) else math.inf for top in tops]
        found.update(zip(group, finite, strict=True))
    return found


def groups_of(tensors: Tensors, names: Iterable[str], most: int) -> list[tuple[str, ...]]:
    """Return `names` in groups that are worked on together: calls of numpy cost more than a small tensor.

    Those of one have any size, or none; the tensors of others hold at most `most` elements in all.
    """
    groups: list[tuple[str, ...]] = []
    group: list[str] = []
    room = most
    for name in names:
        size = tensors[name].size
        if not 0 < size <= SMALL:
            groups.append((name,))
            continue
        if size > room:
            groups.append(tuple(group))
            group, room = [], most
        group.append(name)
        room -= size
    return [*groups, tuple(group)] if group else groups


def size_in_bytes(tensors: Tensors) -> int:
    """Return the bytes of all elements, without names or padding."""
    return sum(array.nbytes for array in tensors.values())


def size_of_table(rows: object) -> int:
    """Return the bytes, padding included, of the tensors of a table from an untrusted header.

    Raises ProtocolError.
    """
    sizes = (math.prod(shape) * dtype.itemsize for _, dtype, shape in map(_checked_row, _checked_rows(rows)))
    return sum(size + -size % ALIGNMENT for size in sizes)


class Tables:
    """Checks the tables of one sender; the same one comes with every update."""

    def __init__(self) -> None:
        self._rows: object = None
        self._checked: list[tuple[str, np.dtype[Any], list[int]]] = []

    def checked(self, rows: object) -> list[tuple[str, np.dtype[Any], list[int]]]:
        """Return (name, dtype, shape) of each row. Raises ProtocolError."""
        if not rows:
            return [] if isinstance(rows, list) else _checked_rows(rows)
        if rows != self._rows:
            checked = [_checked_row(row) for row in _checked_rows(rows)]
            names: set[str] = set()
            for name, _, _ in checked:
                if name in names:
                    raise ProtocolError(f"tensor {name[:80]!r} comes twice")
                names.add(name)
            self._rows, self._checked = rows, checked
        return self._checked


class TensorReader:
    """Takes tensors off a byte buffer, one table after the other, never beyond its end."""

    def __init__(self, data: memoryview, offset: int, tables: Tables | None = None) -> None:
        self._data, self._offset = data, offset
        self._tables = tables or Tables()

    def read(self, rows: object) -> Tensors:
        """Return the tensors of a table from an untrusted header; arrays are read-only views of the buffer.

        Raises ProtocolError for anything odd, before memory is taken.
        """
        return {name: self._take(name, dtype, shape) for name, dtype, shape in self._tables.checked(rows)}

    def finish(self) -> None:
        """Raise ProtocolError when bytes are left over."""
        if self._offset != len(self._data):
            raise ProtocolError(f"{len(self._data) - self._offset} bytes are left over after the last tensor")

    def _take(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
        count = math.prod(shape)
        size = count * dtype.itemsize
        padded = size + -size % ALIGNMENT
        if self._offset + padded > len(self._data):
            raise ProtocolError(f"tensor {name[:80]!r} is cut short")
        array = np.frombuffer(self._data, dtype=dtype, count=count, offset=self._offset) if count else None
        self._offset += padded
        result = np.empty(0, dtype) if array is None else array
        result.flags.writeable = False
        return result.reshape(tuple(shape))


def _checked_rows(rows: object) -> list[Any]:
    if not isinstance(rows, list) or len(rows) > MAX_TENSORS:
        raise ProtocolError("a table of tensors is not a list of at most 65536 rows")
    return rows


def _checked_row(row: object) -> tuple[str, np.dtype[Any], list[int]]:
    if not isinstance(row, list) or len(row) != 3:
        raise ProtocolError("a tensor's row is not [name, dtype, shape]")
    name, kind, shape = row
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise ProtocolError("a tensor's name is no text of at most 512 characters")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ProtocolError(f"tensor {name[:80]!r} has a dtype that may not travel: {str(kind)[:40]!r}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ProtocolError(f"tensor {name[:80]!r} has no shape of at most 8 dimensions")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ProtocolError(f"tensor {name[:80]!r} has a dimension out of range")
    if math.prod(size or 1 for size in shape) > MAX_ELEMENTS:
        raise ProtocolError(f"tensor {name[:80]!r} is too large")
    return name, DTYPES[kind], shape


def _name(dtype: np.dtype[Any]) -> str:
    name = NAMES.get(dtype) or dtype.name
    if name not in DTYPES:
        raise ProtocolError(f"arrays of {name} may not travel; use one of {', '.join(DTYPES)}")
    return name


def _dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return DTYPES[_name(dtype)]


def same_tensors(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether two groups have equal names, order, dtypes, shapes and bits (NaN equals NaN)."""
    if first is second:
        return True
    return rows_of(first) == rows_of(second) and buffers_of(first) == buffers_of(second)
