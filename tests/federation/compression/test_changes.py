"""Packing a model's change: what goes as it is, growth, and tables that no worker makes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engram.federation.codec import size_of
from engram.federation.compression.arrays import Malformed, Method, TopK, method_of
from engram.federation.compression.changes import (
    most_bytes,
    overlap,
    pack_update,
    unpack_order,
    unpack_update,
)
from engram.federation.messages import EMPTY, Tensors, Update

NAMES = ("float16", "int8", "topk")
SameBits = Callable[[Tensors, Tensors], bool]


def model(seed: int = 0, rows: int = 4) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "head.weight": rng.normal(size=(rows, 300)).astype(np.float32),
        "bn.running_var": np.abs(rng.normal(size=7)).astype(np.float32),
        "bn.num_batches_tracked": np.array(seed, np.int64),
        "double": rng.normal(size=3),
        "empty": np.zeros((0, 3), np.float32),
        "one": np.array(rng.normal(), np.float32),
    }


def trained(before: Tensors, seed: int, spread: float = 1e-2) -> dict[str, NDArray[Any]]:
    moves = model(seed, len(before["head.weight"]))
    return {
        name: np.asarray(array + spread * moves[name]).astype(array.dtype) for name, array in before.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_update_is_the_model_but_for_what_is_owed(name: str, same_bits: SameBits) -> None:
    method, before = method_of(name, 0.1), model()
    after = trained(before, 1)
    table, owed = pack_update(after, before, EMPTY, method)
    found = unpack_update(table, before, method)
    plain = [key for key in before if key not in ("head.weight", "one")]
    assert list(found) == list(before)
    assert same_bits({key: found[key] for key in plain}, {key: after[key] for key in plain})
    for key in ("head.weight", "one"):
        left = owed[key] if method.feeds_back else 0.0
        np.testing.assert_allclose(found[key] + left, after[key], atol=3e-5)
    assert set(owed) == (set() if name == "float16" else {"head.weight", "one"})


@pytest.mark.parametrize("name", ["int8", "topk"])
def test_what_is_owed_goes_with_the_next_update(name: str) -> None:
    method, before = method_of(name, 0.1), model()
    after = trained(before, 1)
    _, owed = pack_update(after, before, EMPTY, method)
    table, rest = pack_update(before, before, owed, method)
    said = unpack_update(table, before, method)["head.weight"] - before["head.weight"]
    np.testing.assert_allclose(said + rest["head.weight"], owed["head.weight"], atol=1e-5)
    assert np.abs(said).max() > 0


def test_a_head_that_has_grown_owes_nothing_for_its_new_rows() -> None:
    kept = np.arange(6, dtype=np.float32).reshape(2, 3)
    grown = overlap(kept, (4, 3))
    assert grown.tolist() == [[0, 1, 2], [3, 4, 5], [0, 0, 0], [0, 0, 0]]
    assert overlap(kept, (1, 2)).tolist() == [[0, 1]]
    assert overlap(kept, (2, 3)) is kept
    assert not overlap(kept, (6,)).any()


@pytest.mark.parametrize("name", NAMES)
def test_an_update_takes_no_more_bytes_than_the_limit_counts(name: str) -> None:
    method, before = method_of(name, 0.05), model(rows=100)
    table, _ = pack_update(trained(before, 1), before, EMPTY, method)
    size = size_of(Update(1, 1, 3, table))
    assert size <= most_bytes(before, method) + 200
    assert size < {"float16": 0.52, "int8": 0.27, "topk": 0.06}[name] * 4 * 30_000 + 1000


def test_an_update_that_does_not_fit_the_model_goes_as_it_is_and_is_refused() -> None:
    before = model()
    for wrong in (
        {"w": np.zeros(3, np.float32)},
        {**before, "one": np.zeros(2, np.float32)},
        {**before, "one": np.zeros((), np.float64)},
    ):
        method = method_of("int8", 0.1)
        table, owed = pack_update(wrong, before, EMPTY, method)
        assert (table, owed) == (wrong, EMPTY)
        with pytest.raises(Malformed) as told:
            unpack_update(table, before, method)
        assert told.value.reason == "shape"


def test_what_is_not_finite_is_refused_and_leaves_nothing_owed() -> None:
    before, method = model(), TopK(0.1)
    after = {**before, "head.weight": np.full((4, 300), np.nan, np.float32)}
    table, owed = pack_update(after, before, EMPTY, method)
    assert not owed["head.weight"].any()
    with pytest.raises(Malformed, match=r"head\.weight: a scale is not finite"):
        unpack_update(table, before, method)


def without(table: Tensors, key: str) -> Tensors:
    return {name: array for name, array in table.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: without(table, "0/q"), "head.weight: the parts are s, not q, s"),
        (lambda table: without(table, "1/r"), "bn.running_var: the parts are none, not r"),
        (lambda table: {**table, "0/r": np.zeros(1)}, "head.weight: the parts are q, r, s, not q, s"),
        (lambda table: {**table, "6/r": np.zeros(1)}, "'6/r' is no part of a packed model of 6 tensors"),
        (lambda table: {**table, "00/q": np.zeros(1)}, "'00/q' is no part"),
        (lambda table: {**table, "weights": np.zeros(1)}, "'weights' is no part"),
        (lambda table: {}, "head.weight: the parts are none"),
        (lambda table: {**table, "0/q": np.zeros(9, np.int8)}, "head.weight: part q is int8"),
    ],
)
def test_tables_that_no_worker_makes_are_refused(change: Callable[[Tensors], Tensors], message: str) -> None:
    before, method = model(), method_of("int8", 0.1)
    table, _ = pack_update(trained(before, 1), before, EMPTY, method)
    with pytest.raises(Malformed) as told:
        unpack_update(change(table), before, method)
    assert message in str(told.value)
    assert told.value.reason == "shape"


def test_a_packed_update_of_another_method_is_refused() -> None:
    before = model()
    methods: list[Method] = [method_of(name, 0.1) for name in NAMES]
    for made in methods:
        table, _ = pack_update(trained(before, 1), before, EMPTY, made)
        for other in methods:
            if other is not made:
                with pytest.raises(Malformed, match="the parts are"):
                    unpack_update(table, before, other)


def test_an_order_says_nothing_of_what_is_unchanged() -> None:
    before = model()
    three = np.array(3, np.float32)
    three.flags.writeable = False
    for array in before.values():
        array.flags.writeable = False
    after = unpack_order({"5/r": three}, before)
    assert all(after[name] is before[name] for name in before if name != "one")
    assert after["one"] == 3
    assert not any(array.flags.writeable for array in after.values())


@pytest.mark.parametrize("place", ["0", "2"])
def test_an_order_with_odd_parts_is_refused(place: str) -> None:
    with pytest.raises(Malformed, match="the parts are q, x"):
        unpack_order({f"{place}/q": np.zeros(1), f"{place}/x": np.zeros(1)}, model())


def test_counters_cannot_be_moved_by_an_order() -> None:
    parts = TopK(1.0).pack(np.ones(1, np.float32))
    with pytest.raises(Malformed, match=r"bn\.num_batches_tracked: the parts are"):
        unpack_order({f"2/{part}": array for part, array in parts.items()}, model())


arrays = st.builds(
    lambda kind, shape, fill: np.full(shape, fill).astype(kind),
    st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "uint16", "uint32", "int64", "bool"]),
    st.lists(st.integers(0, 40), max_size=3),
    st.integers(0, 255),
)


@given(
    name=st.sampled_from(NAMES),
    key=st.sampled_from(["0/h", "0/s", "0/q", "0/i", "0/v", "0/r", "1/r", "5/s", "5/i", "6/q", "", "0/"]),
    array=st.none() | arrays,
    noise=st.binary(min_size=1, max_size=64),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_table_holds_it_is_a_model_or_refused(
    name: str, key: str, array: NDArray[Any] | None, noise: bytes
) -> None:
    before, method = model(), method_of(name, 0.3)
    table = dict(pack_update(trained(before, 1), before, EMPTY, method)[0])
    if array is not None:
        table[key] = array
    elif key in table and table[key].size:
        spoilt = np.array(table[key])
        view = spoilt.reshape(-1).view(np.uint8)
        view[: len(noise)] = np.frombuffer(noise, np.uint8)[: view.size]
        table[key] = spoilt
    with contextlib.suppress(Malformed):
        found = unpack_update(table, before, method)
        assert list(found) == list(before)
        assert found["head.weight"].dtype == np.float32
        assert found["head.weight"].shape == (4, 300)
    with contextlib.suppress(Malformed):
        assert list(unpack_order(table, before)) == list(before)
