"""The worker's state as bytes: small enough for the aggregator to keep, with no code inside."""

from __future__ import annotations

import zlib
from typing import Any

import msgpack
import numpy as np

from engram.errors import ConfigurationError, ProtocolError
from engram.federation.messages import Tensors

LIMIT = 256 * 1024
"""Bytes that the aggregator keeps for each worker."""
UNPACKED_LIMIT = 64 * 1024 * 1024
_KINDS = "biuf"


def pack(task: int, tensors: Tensors, worker: str) -> bytes:
    """Return `tensors` at the end of `task` as compressed msgpack of (dtype, shape, little-endian bytes).

    Raises ConfigurationError above 256 KiB.
    """
    body: dict[str, Any] = {"task": task, "tensors": {n: _packed(a) for n, a in tensors.items()}}
    blob = zlib.compress(msgpack.packb(body), level=9)
    if len(blob) > LIMIT:
        raise ConfigurationError(
            f"the state of {worker} takes {len(blob):,} bytes after task {task}; at most {LIMIT:,} are kept",
            field="spec.algorithm.parameters",
            remedy="lower exemplarsPerWorker, or keep less in worker_state",
        )
    return blob


def unpack(blob: bytes) -> tuple[int, dict[str, np.ndarray[Any, Any]]]:
    """Return (task, tensors) of what `pack` made. Raises ProtocolError for any other bytes."""
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(blob, UNPACKED_LIMIT)
        if inflater.unconsumed_tail:
            raise ProtocolError("a worker's state is larger than any that engram writes")
        if not inflater.eof or inflater.unused_data:
            raise ProtocolError("a worker's state is cut off or has something after its end")
        body = msgpack.unpackb(text)
        tensors = {str(name): _unpacked(*entry) for name, entry in body["tensors"].items()}
        return int(body["task"]), tensors
    except (
        zlib.error,
        msgpack.UnpackException,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as error:
        raise ProtocolError(f"a worker's state is damaged: {error}") from error


def _packed(array: np.ndarray[Any, Any]) -> tuple[str, list[int], bytes]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.dtype.str, list(array.shape), little.tobytes()


def _unpacked(dtype: str, shape: list[int], data: bytes) -> np.ndarray[Any, Any]:
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS:
        raise ValueError(f"dtype {dtype} is not a number")
    return np.frombuffer(data, kind).reshape(shape).copy()
