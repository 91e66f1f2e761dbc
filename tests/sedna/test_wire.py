"""Messages from anybody: each is read or refused with a reason, and what is written reads back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engram.federation.messages import Tensors
from engram.sedna import wire
from engram.spec.names import Rejection

NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
NESTED = st.recursive(NUMBERS, lambda below: st.lists(below, max_size=3), max_leaves=20)
ANYTHING = st.recursive(
    NUMBERS,
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.text(max_size=6), below, max_size=3)
    ),
    max_leaves=20,
)
KEYS = st.sampled_from(["type", "client_id", "client", "data", "num_samples", "weights", "job_name"])
KINDS = st.sampled_from(["subscribe", "update_weight", "recv_weight"])
MESSAGES = st.dictionaries(KEYS, st.one_of(ANYTHING, KINDS), max_size=6)
UPLOADS = st.fixed_dictionaries(
    {
        "type": st.just("update_weight"),
        "client": st.one_of(st.just("w0"), ANYTHING),
        "data": st.fixed_dictionaries({"num_samples": NUMBERS, "weights": NESTED}),
    }
)
MODEL: Tensors = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32), "n": np.array(0, np.int64)}


def refusal(read: Callable[[], object]) -> str:
    """Return the reason why something is refused, empty when it is not."""
    try:
        read()
    except wire.Unreadable as error:
        return error.reason if str(error) else "no words"
    return ""


@given(st.one_of(st.text(), st.binary(), MESSAGES.map(json.dumps), UPLOADS.map(json.dumps)))
def test_any_message_is_read_or_refused(text: str | bytes) -> None:
    def read() -> None:
        message = wire.parse(text)
        if isinstance(message, wire.Upload):
            wire.as_tensors(message.weights, MODEL)

    assert refusal(read) in ("", *Rejection)


@given(st.lists(NESTED, max_size=4), st.booleans())
def test_any_weights_are_the_models_or_refused(weights: list[Any], known: bool) -> None:
    model = MODEL if known else {}
    reason = refusal(lambda: wire.as_tensors(weights, model))
    assert reason in ("", "shape")
    if reason:
        return
    tensors = wire.as_tensors(weights, model)
    assert len(tensors) == len(weights)
    for name, array in tensors.items():
        like = model.get(name)
        assert array.dtype == (np.float64 if like is None else like.dtype)
        assert like is None or array.shape == like.shape


@given(
    arrays.arrays(
        np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
)
def test_a_float32_is_written_with_few_digits_and_reads_back_the_same(array: np.ndarray) -> None:
    text = json.dumps(wire.shortest(array).tolist())
    assert np.array_equal(np.array(json.loads(text), np.float32), array)


def test_a_float32_of_the_usual_size_takes_nine_digits() -> None:
    array = np.random.RandomState(0).normal(size=1000).astype(np.float32)
    texts = [repr(abs(value)) for value in wire.shortest(array).tolist()]
    digits = [text.split("e")[0].replace(".", "").lstrip("0") for text in texts]
    assert max(map(len, digits)) <= 9


def test_what_we_upload_reads_back_the_same() -> None:
    weights = {"w": np.random.RandomState(0).normal(size=(2, 3)).astype(np.float32), "n": np.array(7)}
    message = wire.parse(wire.upload("w0", 10, weights, "job"))
    assert isinstance(message, wire.Upload)
    assert (message.client, message.samples, message.job_name) == ("w0", 10, "job")
    again = wire.as_tensors(message.weights, weights)
    assert all(np.array_equal(again[name], array) for name, array in weights.items())


@pytest.mark.parametrize("value", [1e39, -1e39])
def test_what_is_too_large_for_float32_becomes_infinite_and_is_found_as_such(value: float) -> None:
    tensors = wire.as_tensors([[value]], {"w": np.zeros(1, np.float32)})
    assert np.isinf(tensors["w"]).all()


def test_an_upload_has_room_for_every_digit() -> None:
    array = np.full(10_000, -np.float64(1.2345678901234567e-300))
    assert len(wire.upload("w" * 200, 10**9, {"w": array}, "j" * 200)) < wire.upload_limit({"w": array})
    assert wire.upload_limit({}) == wire.UNKNOWN_MODEL_LIMIT
