"""The aggregator's side: its model is what its orders say, for whoever has heard the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engram.errors import ProtocolError
from engram.federation.codec import DOWN, Common, Decoder, Encoder, size_of
from engram.federation.compression.arrays import method_of
from engram.federation.compression.broadcast import Broadcast, Model
from engram.federation.messages import Consolidate, Evaluate, Message, Order, Tensors, Train
from engram.spec.training import Aggregation

NAMES = ("float16", "int8", "topk")
SameBits = Callable[[Tensors, Tensors], bool]


def broadcast(name: str, share: float = 0.05) -> Broadcast:
    aggregation = Aggregation.model_validate({"compression": name, "topkShare": share})
    return Broadcast(aggregation, method_of(name, share))


def start(size: int = 20_000) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.normal(size=(size // 100, 100)).astype(np.float32),
        "head": rng.normal(size=(2, 30)).astype(np.float32),
        "bn.running_mean": np.zeros(3, np.float32),
        "steps": np.array(0, np.int64),
    }


def after(before: Tensors, seed: int) -> Tensors:
    """Return what a rule makes of a round: floating-point numbers move, counters stay."""
    rng = np.random.default_rng(seed)
    result: dict[str, NDArray[Any]] = dict(before)
    for name in ("w", "head", "bn.running_mean"):
        move = 1e-2 * rng.normal(size=before[name].shape)
        result[name] = (before[name] + move).astype(np.float32)
        result[name].flags.writeable = False
    return result


def decoded(decoder: Decoder[Any], encoder: Encoder, order: Order) -> Tensors:
    message = decoder.decode(encoder.encode(order).join())
    weights: Tensors = message.weights
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_who_has_the_round_before_gets_the_same_bits_in_fewer_bytes(name: str, same_bits: SameBits) -> None:
    side, encoder, decoder = broadcast(name), Encoder(), Decoder[Any](DOWN)
    model = side.replaced({}, start())
    full = size_of(Train(1, 1, model, ()))
    assert same_bits(decoded(decoder, encoder, Train(1, 1, model, ())), model)
    for number in range(2, 6):
        model = side.moved(model, after(model, number), 2)
        order = Train(1, number, model, ())
        encoded = encoder.encode(order)
        assert encoded.size < {"float16": 0.52, "int8": 0.27, "topk": 0.1}[name] * full
        assert same_bits(decoder.decode(encoded.join()).weights, model)
        # A newcomer gets it whole.
        assert size_of(order) == full
        assert same_bits(decoded(Decoder[Any](DOWN), Encoder(), order), model)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_order_does_not_say_goes_with_the_next(name: str) -> None:
    side = broadcast(name)
    first = model = side.replaced({}, start())
    truth = model["w"].astype(np.float64)
    for number in range(1, 100):
        wanted = after(model, number)
        truth += wanted["w"].astype(np.float64) - model["w"]
        model = side.moved(model, wanted, 2)
    owed = side.state()["w"]
    np.testing.assert_allclose(model["w"] + owed, truth, atol=1e-4)
    far = np.linalg.norm(truth - first["w"])
    assert np.linalg.norm(owed) < {"float16": 1e-4, "int8": 1e-3, "topk": 0.9}[name] * far


def test_an_order_that_repeats_the_model_carries_nothing_of_it(same_bits: SameBits) -> None:
    side, encoder, decoder = broadcast("int8"), Encoder(), Decoder[Any](DOWN)
    model = side.replaced({}, start())
    decoded(decoder, encoder, Train(1, 1, model, ()))
    orders: list[Order] = [Evaluate(1, 1, model, ()), Train(1, 2, model, ()), Consolidate(1, model, ())]
    for order in orders:
        data = encoder.encode(order).join()
        assert len(data) < 200
        assert same_bits(decoder.decode(data).weights, model)


def test_what_a_learner_has_made_of_the_model_goes_as_it_is(same_bits: SameBits) -> None:
    side, encoder, decoder = broadcast("int8"), Encoder(), Decoder[Any](DOWN)
    model = side.replaced({}, start())
    decoded(decoder, encoder, Train(1, 1, model, ()))
    model = side.moved(model, after(model, 1), 2)
    decoded(decoder, encoder, Consolidate(1, model, ()))
    corrected = {**model, "steps": np.array(5, np.int64), "w": np.array(model["w"])}
    model = side.replaced(model, corrected)
    grown = {**model, "head": np.concatenate([model["head"], np.ones((2, 30), np.float32)])}
    model = side.replaced(model, grown)
    order = Train(2, 1, model, ())
    data = encoder.encode(order).join()
    assert len(data) < 1000
    assert same_bits(decoder.decode(data).weights, model)
    assert "head" in side.state()


def test_a_change_goes_through_a_correction_that_touches_other_tensors(same_bits: SameBits) -> None:
    side, encoder, decoder = broadcast("int8"), Encoder(), Decoder[Any](DOWN)
    model = side.replaced({}, start())
    decoded(decoder, encoder, Train(1, 1, model, ()))
    model = side.moved(model, after(model, 1), 2)
    model = side.replaced(model, {**model, "head": model["head"] * np.float32(0.5)})
    data = encoder.encode(Train(1, 2, model, ())).join()
    assert len(data) < 22_000
    assert same_bits(decoder.decode(data).weights, model)
    assert "head" not in side.state()  # what was owed was owed to other values
    assert "w" in side.state()


def test_topk_goes_down_as_int8_where_that_is_shorter() -> None:
    side = broadcast("topk", 0.05)
    model = side.replaced({}, start())
    assert set(side.moved(model, after(model, 1), 2).steps["w"].parts) == {"i", "v", "s"}
    assert set(side.moved(model, after(model, 1), 10).steps["w"].parts) == {"q", "s"}


def test_a_rule_that_makes_what_is_not_finite_is_not_hidden(same_bits: SameBits) -> None:
    side, encoder, decoder = broadcast("int8"), Encoder(), Decoder[Any](DOWN)
    model = side.replaced({}, start())
    decoded(decoder, encoder, Train(1, 1, model, ()))
    broken = {**model, "w": np.full_like(model["w"], np.nan)}
    model = side.moved(model, broken, 2)
    assert np.isnan(model["w"]).all()
    assert same_bits(decoder.decode(encoder.encode(Train(1, 2, model, ())).join()).weights, model)


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_goes_on_with_the_same_bits(name: str, same_bits: SameBits) -> None:
    side = broadcast(name)
    model = side.moved(side.replaced({}, start()), after(start(), 1), 2)
    again = broadcast(name)
    again.restore({key: np.array(array) for key, array in side.state().items()})
    saved = {key: np.array(array) for key, array in model.items()}
    restored = again.replaced(saved, saved)
    wanted = after(model, 2)
    assert same_bits(again.moved(restored, wanted, 2), side.moved(model, wanted, 2))
    assert same_bits(again.state(), side.state())


def test_the_same_change_is_encoded_once_for_all_connections() -> None:
    side, common = broadcast("int8"), Common()
    model = side.replaced({}, start())
    first, second, late = Encoder(common), Encoder(common), Encoder(common)
    for encoder in (first, second):
        encoder.encode(Train(1, 1, model, ()))
    model = side.moved(model, after(model, 1), 2)
    order = Train(1, 2, model, ())
    changed = first.encode(order)
    assert second.encode(order) is changed
    assert late.encode(order).size > 3 * changed.size


def test_a_change_of_a_model_that_was_never_sent_is_refused() -> None:
    side, encoder = broadcast("int8"), Encoder()
    model = side.replaced({}, start())
    encoder.encode(Train(1, 1, model, ()))
    data = encoder.encode(Train(1, 2, side.moved(model, after(model, 1), 2), ())).join()
    with pytest.raises(ProtocolError, match="a model that was never sent on this connection"):
        Decoder[Message](DOWN).decode(data)


def test_a_model_with_other_tensors_goes_whole() -> None:
    model = Model(start(), {})
    assert model.since(start()) is not None
    assert model.since(dict(reversed(list(start().items())))) is None
    others: Mapping[str, NDArray[Any]] = {**start(), "more": np.zeros(1)}
    assert model.since(others) is None
