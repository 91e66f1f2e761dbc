from __future__ import annotations

import zlib
from typing import Any

import msgpack
import numpy as np
import pytest

from engram.errors import ConfigurationError, ProtocolError
from engram.learning.state import LIMIT, pack, unpack


def test_round_trip() -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a": np.arange(5, dtype=np.uint16),
        "b": np.array([[1.5, -2.0]], np.float32),
        "c": np.array(3),
    }
    task, found = unpack(pack(4, tensors, "w"))
    assert task == 4
    assert list(found) == ["a", "b", "c"]
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].flags.writeable


def test_equal_states_are_equal_bytes() -> None:
    assert pack(1, {"a": np.ones(3)}, "w") == pack(1, {"a": np.ones(3)}, "w")


def test_big_endian_arrays_travel_as_little_endian() -> None:
    _, found = unpack(pack(1, {"a": np.array([1, 256], ">u2")}, "w"))
    assert found["a"].tolist() == [1, 256]


def test_too_large_a_state_is_refused_by_name_and_size() -> None:
    noise = np.random.RandomState(0).bytes(LIMIT + 1)
    with pytest.raises(ConfigurationError, match=r"trainworker-edge-3 takes 26\d,\d\d\d bytes.*262,144"):
        pack(2, {"a": np.frombuffer(noise, np.uint8)}, "trainworker-edge-3")


def test_a_thousand_exemplars_a_class_fit() -> None:
    positions = np.random.RandomState(0).permutation(50_000).astype(np.uint16)
    assert len(pack(1, {"exemplars/positions": positions}, "w")) < LIMIT


@pytest.mark.parametrize(
    "blob",
    [
        b"not zlib",
        zlib.compress(b"\xc1"),
        zlib.compress(msgpack.packb([1, 2])),
        zlib.compress(msgpack.packb({"task": 1})),
        zlib.compress(msgpack.packb({"task": 1, "tensors": {"a": ("|O", [1], b"12345678")}})),
        zlib.compress(msgpack.packb({"task": 1, "tensors": {"a": ("<f4", [3], b"1234")}})),
        zlib.compress(msgpack.packb({"task": None, "tensors": {}})),
        zlib.compress(b"\x00" * (65 * 1024 * 1024)),
        pack(1, {"a": np.ones(300)}, "w")[:-8],
    ],
)
def test_other_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(ProtocolError, match="state"):
        unpack(blob)
