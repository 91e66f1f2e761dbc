"""Reading a pickle without ever running what is in it.

A pickle may call any function of any module. The CIFAR archives are pickles of dictionaries, lists, bytes and
numpy arrays, and nothing else is let through: a name outside a short list is refused before it is looked up,
and the names on the list lead to the inert stand-ins below, not to numpy, so no code of numpy sees the file's
claims about sizes before they are checked.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engram.errors import DataError


class _DType:
    """Stand-in for numpy.dtype: remembers what the file says."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = _text(code)
        self.order = "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2:
            raise pickle.UnpicklingError("an array type with a malformed state")
        self.order = _text(state[1])

    def plain(self) -> np.dtype[Any]:
        """Return the numpy type if it is a plain number."""
        if not re.fullmatch("[uif][1248]", self.code) or self.order not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError(f"an array of {self.order}{self.code} instead of numbers")
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Array:
    """Stand-in for numpy.ndarray (and for the function that makes an empty one to be filled)."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array with a malformed state")
        _, shape, dtype, fortran, raw = state
        if isinstance(raw, str):
            raw = raw.encode("latin-1")
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array with a malformed state")
        kind = dtype.plain()
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape}")
        if math.prod(shape) * kind.itemsize != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(raw)} bytes")
        self.value = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


class _Encode:
    """Stand-in for the function _codecs.encode, by which Python 3 writes bytes into old pickles."""

    def __call__(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("bytes in an unknown encoding")
        return text.encode("latin-1")

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function with a state")


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


# Each has a __setstate__ of its own: else the pickle's BUILD opcode could set attributes on it.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Encode(),
}


class _ArraysOnly(pickle._Unpickler):
    # The unpickler in C allocates what a damaged memo index claims, up to 64 GB; the one in Python does not.
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _CodeInPickle(f"{module}.{name}") from None


class _CodeInPickle(pickle.UnpicklingError):
    """The pickle asks for something that is not data."""


def load_arrays(content: bytes, path: Path | str) -> Any:
    """Return the dictionaries, lists, numbers, bytes and numpy arrays that the pickle `content` holds.

    Python 2 strings become bytes. Raises DataError naming `path` when the pickle holds anything else (nothing
    of it is run) or is damaged.
    """
    try:
        return _plain(_ArraysOnly(io.BytesIO(content), encoding="bytes").load())
    except _CodeInPickle as error:
        raise DataError(
            f"{path}: refused: the pickle asks for {error}, which could run code; only arrays, bytes, lists "
            "and dictionaries are allowed: get the file from its original source"
        ) from error
    except (
        pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, MemoryError, OverflowError,
        RecursionError, TypeError, ValueError, struct.error,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path}: damaged or not a pickle of arrays ({error}); copy the file again"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("an array without content")
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bytes, str, int, float)):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__}")
