"""The change of one tensor in fewer bytes: float16, int8 with a scale a block, or its largest values only.

Packing is a pure function without random numbers, so the same change gives the same bytes everywhere.
Unpacking trusts nothing: whatever is not exactly what packing makes is refused before memory is taken for it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

Parts: TypeAlias = Mapping[str, NDArray[Any]]
"""What a packed tensor consists of, by part: at most one letter each, so that the header stays short."""
Values: TypeAlias = NDArray[np.float32]

SCALED = 2048
"""Values of a tensor that share one scale of int8."""
AT_ONCE = 32
"""Blocks of int8 that are packed at once; their copies stay in the processor's cache."""
LEVELS = 127
"""Steps of int8 on each side of zero."""
HALF_EXPONENT = 14
"""The largest value of a tensor becomes about 2^14 in float16: nothing overflows, and what is smaller by up
to 2^-28 is still a normal number.
"""
SMALLEST_EXPONENT = -100
"""Of the scale of a tensor in float16: smaller changes than float32 can add to a weight need no precision."""
NARROW = 1 << 16
"""Tensors of up to so many values have 16 bit indices."""


class Malformed(ValueError):
    """Parts that no change of this tensor is packed into; `reason` is one of `messages.Reject`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Method(ABC):
    """One way to pack the change of a tensor of float32."""

    parts: ClassVar[frozenset[str]]
    """Names of the parts that it makes."""
    feeds_back: ClassVar[bool] = True
    """Whether what an update does not say is too much to be forgotten: it goes with the next one."""

    @abstractmethod
    def pack(self, values: Values) -> Parts:
        """Return the parts of a flat tensor of at least one value. What is not finite stays so."""

    @abstractmethod
    def unpack(self, parts: Parts, size: int) -> Values:
        """Return the flat tensor of `size` values that was packed, or nearly that.

        Raises Malformed.
        """

    @abstractmethod
    def bytes_of(self, size: int) -> int:
        """Return the bytes of the parts of a tensor of `size` values."""


class Float16(Method):
    """Each value as float16, the whole tensor scaled by a power of two: off by at most 2^-11 of the value."""

    parts = frozenset("hs")
    feeds_back = False

    def pack(self, values: Values) -> Parts:
        """See `Method.pack`."""
        largest = _largest(values)
        if not math.isfinite(largest):
            return {"h": np.zeros(values.size, np.float16), "s": np.array([np.nan], np.float32)}
        exponent = max(math.frexp(largest)[1] - HALF_EXPONENT, SMALLEST_EXPONENT)
        scale = np.float32(math.ldexp(1.0, exponent))
        return {"h": (values / scale).astype(np.float16), "s": np.array([scale], np.float32)}

    def unpack(self, parts: Parts, size: int) -> Values:
        """See `Method.unpack`."""
        halves = _checked(parts, "h", np.float16, size)
        scales = _scales(_checked(parts, "s", np.float32, 1))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by who uses it
            values: Values = np.multiply(halves, scales[0], dtype=np.float32)
        return values

    def bytes_of(self, size: int) -> int:
        """See `Method.bytes_of`."""
        return 2 * size + 4


class Int8(Method):
    """Each value as one of 255 steps of its block's largest: off by at most half a step."""

    parts = frozenset("qs")

    def pack(self, values: Values) -> Parts:
        """See `Method.pack`."""
        steps, scales = np.zeros(values.size, np.int8), np.zeros(_blocks(values.size), np.float32)
        whole = values.size - values.size % SCALED
        for start in range(0, whole, SCALED * AT_ONCE):
            end = min(whole, start + SCALED * AT_ONCE)
            rows = values[start:end].reshape(-1, SCALED)
            scales[start // SCALED : end // SCALED] = found = _scales_of(rows)
            steps[start:end] = _steps_of(rows, found).reshape(-1)
        if whole < values.size:
            rows = values[whole:].reshape(1, -1)
            scales[-1:] = found = _scales_of(rows)
            steps[whole:] = _steps_of(rows, found)[0]
        return {"q": steps, "s": scales}

    def unpack(self, parts: Parts, size: int) -> Values:
        """See `Method.unpack`."""
        steps = _checked(parts, "q", np.int8, size)
        scales = _scales(_checked(parts, "s", np.float32, _blocks(size)))
        values = steps.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # as above
            whole = size - size % SCALED
            by_block = values[:whole].reshape(-1, SCALED)
            np.multiply(by_block, scales[: whole // SCALED, None], out=by_block)
            values[whole:] *= scales[-1]
        return values

    def bytes_of(self, size: int) -> int:
        """See `Method.bytes_of`."""
        return size + 4 * _blocks(size)


class TopK(Method):
    """The largest values, as float16, and where they are: indices, or one bit a value where that is shorter.

    Of values of the same magnitude the first ones are taken. All others count as zero.
    """

    parts = frozenset("ivs")

    def __init__(self, share: float | None) -> None:
        """Keep ceil(share x size) values; None: unpack however many there are."""
        self._share = share
        self._half = Float16()

    def kept(self, size: int) -> int:
        """Return how many of `size` values go."""
        return min(size, max(1, math.ceil((self._share or 0.0) * size - 1e-9)))

    def pack(self, values: Values) -> Parts:
        """See `Method.pack`."""
        kept = self.kept(values.size)
        if math.isfinite(_largest(values)):
            found = _positions(values, kept)
            chosen = values[found]
        else:
            found, chosen = np.arange(kept), np.full(kept, np.nan, np.float32)
        packed = self._half.pack(chosen)
        return {"i": _places(found, values.size), "v": packed["h"], "s": packed["s"]}

    def unpack(self, parts: Parts, size: int) -> Values:
        """See `Method.unpack`."""
        kept = self.kept(size) if self._share is not None else _part(parts, "v").size
        if not 0 < kept <= size:
            raise Malformed("shape", f"{kept} of {size} values")
        found = _found(_place_part(parts, size, kept), size, kept)
        values = np.zeros(size, np.float32)
        values[found] = self._half.unpack({"h": _part(parts, "v"), "s": _part(parts, "s")}, kept)
        return values

    def bytes_of(self, size: int) -> int:
        """See `Method.bytes_of`."""
        kept = self.kept(size)
        return min(kept * _index_type(size).itemsize, _mask_bytes(size)) + self._half.bytes_of(kept)


def method_of(name: str, share: float) -> Method:
    """Return what `spec.aggregation.compression` names; `share` is topk's."""
    match name:
        case "float16":
            return Float16()
        case "int8":
            return Int8()
        case "topk":
            return TopK(share)
    raise ValueError(f"no compression is called {name!r}")


def _largest(values: NDArray[Any]) -> float:
    """Return the largest magnitude; NaN or infinity when one is there."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def _scales_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale of each row: a step of its largest magnitude; NaN where that is not finite."""
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.where(np.isfinite(largest), largest / np.float32(LEVELS), np.float32(np.nan))


def _steps_of(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return each value in steps of its row; zeros in rows without a scale."""
    usable = scales > 0
    steps = np.rint(rows / np.where(usable, scales, np.float32(1))[:, None])
    steps[~usable] = 0
    return np.clip(steps, -LEVELS, LEVELS, out=steps).astype(np.int8)


def _blocks(size: int) -> int:
    return -(-size // SCALED)


def _part(parts: Parts, name: str) -> NDArray[Any]:
    if name not in parts:
        raise Malformed("shape", f"part {name} is missing")
    return parts[name]


def _checked(parts: Parts, name: str, kind: type[np.generic], size: int) -> NDArray[Any]:
    array = _part(parts, name)
    if array.dtype != kind or array.shape != (size,):
        wanted = f"{np.dtype(kind)}({size},)"
        raise Malformed("shape", f"part {name} is {array.dtype}{array.shape}, not {wanted}")
    return array


def _scales(scales: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(scales).all():
        raise Malformed("non-finite", "a scale is not finite")
    if (scales < 0).any():
        raise Malformed("protocol", "a scale is negative")
    return scales


# Where the largest values are.


def _positions(values: Values, kept: int) -> NDArray[np.intp]:
    """Return the positions of the `kept` largest magnitudes, ascending.

    By the value of the smallest one, which does not depend on how numpy partitions.
    """
    magnitudes = np.abs(values)
    smallest = np.partition(magnitudes, values.size - kept)[values.size - kept]
    larger = np.flatnonzero(magnitudes > smallest)
    equal = np.flatnonzero(magnitudes == smallest)[: kept - larger.size]
    return np.sort(np.concatenate([larger, equal]))


def _index_type(size: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if size <= NARROW else np.uint32)


def _mask_bytes(size: int) -> int:
    return -(-size // 8)


def _masked(size: int, kept: int) -> bool:
    """Return whether one bit a value is shorter than the indices."""
    return _mask_bytes(size) < kept * _index_type(size).itemsize


def _places(found: NDArray[np.intp], size: int) -> NDArray[Any]:
    if not _masked(size, found.size):
        return found.astype(_index_type(size))
    mask = np.zeros(size, np.bool_)
    mask[found] = True
    return np.packbits(mask, bitorder="little")


def _place_part(parts: Parts, size: int, kept: int) -> NDArray[Any]:
    if _masked(size, kept):
        return _checked(parts, "i", np.uint8, _mask_bytes(size))
    return _checked(parts, "i", _index_type(size).type, kept)


def _found(places: NDArray[Any], size: int, kept: int) -> NDArray[Any]:
    if _masked(size, kept):
        bits = np.unpackbits(places, bitorder="little")
        if int(bits.sum()) != kept or bits[size:].any():
            raise Malformed("protocol", f"the bits do not mark {kept} of {size} values")
        return np.flatnonzero(bits)
    if int(places[-1]) >= size or (places[1:] <= places[:-1]).any():
        raise Malformed("protocol", f"the indices do not ascend below {size}")
    return places
