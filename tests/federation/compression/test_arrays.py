"""Packing one tensor: how far off it is at most, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from numpy.typing import NDArray

from engram.federation.compression.arrays import (
    NARROW,
    SCALED,
    Float16,
    Int8,
    Malformed,
    Method,
    Parts,
    TopK,
    method_of,
)

Values = NDArray[np.float32]
METHODS: list[Method] = [Float16(), Int8(), TopK(0.1), TopK(0.6), TopK(1.0)]

floats = st.floats(-(2.0**100), 2.0**100, width=32)
tensors = of_numpy.arrays(np.float32, st.integers(1, 3 * SCALED), elements=floats, fill=floats)


def random(size: int, seed: int = 0, spread: float = 1e-3) -> Values:
    return (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)


def size_of(parts: Parts) -> int:
    return sum(array.nbytes for array in parts.values())


@given(values=tensors)
@settings(max_examples=60, deadline=None)
def test_float16_is_off_by_at_most_a_rounding(values: Values) -> None:
    found = Float16().unpack(Float16().pack(values), values.size)
    largest = float(np.abs(values).max())
    bound = np.abs(values.astype(np.float64)) * 2.0**-11 + max(largest * 2.0**-38, 2.0**-122)
    assert (np.abs(found.astype(np.float64) - values) <= bound).all()


@given(values=tensors)
@settings(max_examples=60, deadline=None)
def test_int8_is_off_by_at_most_half_a_step_of_its_block(values: Values) -> None:
    found = Int8().unpack(Int8().pack(values), values.size)
    for start in range(0, values.size, SCALED):
        block = values[start : start + SCALED].astype(np.float64)
        step = float(np.abs(block).max()) / 127
        assert np.abs(found[start : start + SCALED] - block).max() <= step * 0.5001 + 2.0**-140


@given(values=tensors, share=st.floats(0.001, 1.0))
@settings(max_examples=60, deadline=None)
def test_topk_takes_the_largest_values_and_zero_for_the_rest(values: Values, share: float) -> None:
    method = TopK(share)
    found = method.unpack(method.pack(values), values.size)
    kept = method.kept(values.size)
    assert math.floor(share * values.size) <= kept <= math.floor(share * values.size) + 1
    order = np.lexsort((np.arange(values.size), -np.abs(values)))
    chosen, rest = order[:kept], order[kept:]
    whole = Float16()
    wanted = whole.unpack(whole.pack(values[np.sort(chosen)]), kept)
    assert found[np.sort(chosen)].tobytes() == wanted.tobytes()
    assert not found[rest].any()


@given(values=tensors, method=st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_parts_have_the_bytes_that_were_announced(values: Values, method: Method) -> None:
    parts = method.pack(values)
    assert parts.keys() == method.parts
    assert size_of(parts) == method.bytes_of(values.size)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1e-45, 3e38, -3e38])
def test_the_ends_of_float32_survive(method: Method, value: float) -> None:
    values = np.full(5, value, np.float32)
    found = method.unpack(method.pack(values), 5)
    assert np.isfinite(found).all()
    assert np.abs(found - values).max() <= max(abs(value), 1e-44)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_packed_so_that_it_is_refused(method: Method, value: float) -> None:
    values = random(5000)
    values[4321] = value
    with pytest.raises(Malformed) as told:
        method.unpack(method.pack(values), values.size)
    assert told.value.reason == "non-finite"


@pytest.mark.parametrize("name", ["int8", "topk"])
def test_what_is_owed_and_said_again_sums_to_the_truth(name: str) -> None:
    method = method_of(name, 0.05)
    owed, truth, said = np.zeros(3000, np.float32), np.zeros(3000), np.zeros(3000)
    gaps = []
    for step in range(200):
        change = random(3000, step)
        packed = change + owed
        sent = method.unpack(method.pack(packed), 3000)
        owed = packed - sent
        truth, said = truth + change, said + sent
        gaps.append(float(np.abs(truth - said - owed).max()))
    assert max(gaps) < 1e-6
    # What is owed does not grow for ever: 200 changes are said but for what fits into a few of them.
    assert np.linalg.norm(owed) < {"int8": 0.02, "topk": 20}[name] * np.linalg.norm(random(3000))


@pytest.mark.parametrize("size", [100, NARROW, NARROW + 1])
def test_topk_says_where_in_the_shorter_way(size: int) -> None:
    index = 2 if size <= NARROW else 4
    few, many = TopK(0.01).pack(random(size)), TopK(0.5).pack(random(size))
    assert few["i"].dtype == np.dtype(f"uint{8 * index}")
    assert many["i"].dtype == np.uint8
    assert many["i"].size == math.ceil(size / 8)


def changed(parts: Parts, part: str, array: NDArray[Any]) -> Parts:
    return {**parts, part: array}


def indices(*values: int) -> NDArray[np.uint16]:
    return np.array(values, np.uint16)


FEW, MANY = TopK(0.03), TopK(0.5)
BAD: list[tuple[Method, str, NDArray[Any], str]] = [
    (Float16(), "h", np.zeros(99, np.float16), "shape"),
    (Float16(), "h", np.zeros(100, np.float32), "shape"),
    (Float16(), "h", np.zeros((10, 10), np.float16), "shape"),
    (Float16(), "s", np.zeros(0, np.float32), "shape"),
    (Float16(), "s", np.array([np.inf], np.float32), "non-finite"),
    (Float16(), "s", np.array([-1], np.float32), "protocol"),
    (Int8(), "q", np.zeros(101, np.int8), "shape"),
    (Int8(), "q", np.zeros(100, np.uint8), "shape"),
    (Int8(), "s", np.zeros(2, np.float32), "shape"),
    (Int8(), "s", np.array([np.nan], np.float32), "non-finite"),
    (Int8(), "s", np.array([-0.5], np.float32), "protocol"),
    (FEW, "i", indices(1, 2), "shape"),
    (FEW, "i", indices(1, 2, 100), "protocol"),
    (FEW, "i", indices(1, 2, 2), "protocol"),
    (FEW, "i", indices(2, 1, 3), "protocol"),
    (FEW, "i", np.array([1, 2, 3], np.int16), "shape"),
    (FEW, "v", np.zeros(4, np.float16), "shape"),
    (FEW, "v", np.zeros(3, np.float32), "shape"),
    (MANY, "i", np.zeros(13, np.uint8), "protocol"),
    (MANY, "i", np.full(13, 255, np.uint8), "protocol"),
    (MANY, "i", np.array([0] * 6 + [255] * 6 + [0xF3], np.uint8), "protocol"),
    (MANY, "i", np.zeros(12, np.uint8), "shape"),
    (TopK(None), "v", np.zeros(0, np.float16), "shape"),
    (TopK(None), "v", np.zeros(101, np.float16), "shape"),
    (TopK(None), "v", np.zeros(4, np.float16), "shape"),
]


@pytest.mark.parametrize(("method", "part", "array", "reason"), BAD)
def test_what_packing_never_makes_is_refused(
    method: Method, part: str, array: NDArray[Any], reason: str
) -> None:
    made = FEW if isinstance(method, TopK) and method is not MANY else method
    good = made.pack(random(100))
    method.unpack(good, 100)
    with pytest.raises(Malformed) as told:
        method.unpack(changed(good, part, array), 100)
    assert told.value.reason == reason


@pytest.mark.parametrize("method", METHODS)
def test_a_part_that_is_missing_is_refused(method: Method) -> None:
    parts = method.pack(random(100))
    for missing in parts:
        rest = {part: array for part, array in parts.items() if part != missing}
        with pytest.raises(Malformed, match=f"part {missing} is missing"):
            method.unpack(rest, 100)


def test_a_scale_that_overflows_gives_what_is_not_finite_and_no_warning() -> None:
    parts: Parts = {"q": np.full(100, 127, np.int8), "s": np.array([3e38], np.float32)}
    assert np.isinf(Int8().unpack(parts, 100)).all()


def test_unknown_names_are_told() -> None:
    with pytest.raises(ValueError, match="zip"):
        method_of("zip", 0.1)
