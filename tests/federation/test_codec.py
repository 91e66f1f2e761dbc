from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any, ClassVar

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engram import __version__
from engram.errors import ProtocolError, RefusedError
from engram.federation.carried import Digests
from engram.federation.codec import CHUNK, DOWN, MAGIC, UP, Common, Decoder, Encoder, size_of
from engram.federation.messages import (
    Ack,
    ClassCounts,
    Consolidate,
    Consolidated,
    Evaluate,
    Evaluation,
    Finish,
    Heartbeat,
    Hello,
    Log,
    Message,
    Reject,
    Shared,
    Tensors,
    Train,
    Update,
    Wait,
    Welcome,
)
from engram.federation.tensors import DTYPES, digest_of, frozen

ANY = UP | DOWN
numbers = st.integers(0, 2**53 - 1)
text = st.text(max_size=40)
finite = st.floats(allow_nan=False)
arrays = st.sampled_from(list(DTYPES.values())).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
tensors = st.dictionaries(text, arrays, max_size=4)
shared = st.dictionaries(text, tensors, max_size=3)
metrics = st.dictionaries(text, finite, max_size=4)
counts = st.dictionaries(numbers, numbers, max_size=4)
class_counts = st.builds(ClassCounts, counts, counts, counts)
pairs = st.none() | st.tuples(numbers, numbers)
labels = st.lists(numbers, max_size=5).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, text, numbers, numbers, text, text, numbers, text, pairs),
    st.builds(Welcome, text, numbers, numbers, finite, st.binary(max_size=99), st.booleans()),
    st.builds(Train, numbers, numbers, tensors, labels, shared),
    st.builds(Update, numbers, numbers, numbers, tensors, metrics, tensors),
    st.builds(Consolidate, numbers, tensors, labels, shared),
    st.builds(Consolidated, numbers, numbers, tensors, st.binary(max_size=99), metrics),
    st.builds(Evaluate, numbers, numbers, tensors, labels, shared),
    st.builds(Evaluation, numbers, numbers, class_counts),
    st.builds(Heartbeat, text, finite, st.none() | finite, numbers, numbers),
    st.builds(Ack, numbers, numbers),
    st.builds(Reject, text, text, numbers, numbers),
    st.just(Wait()),
    st.builds(Log, text, numbers, text),
    st.builds(Finish, text, text),
)


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return (
            isinstance(second, np.ndarray)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    if isinstance(first, Mapping):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if dataclasses.is_dataclass(first):
        return type(first) is type(second) and all(
            equal(getattr(first, field.name), getattr(second, field.name))
            for field in dataclasses.fields(first)
        )
    return bool(first == second)


@given(message=messages)
@settings(max_examples=150)
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    encoded = Encoder().encode(message)
    data = encoded.join()
    assert len(data) == encoded.size == size_of(message)
    assert b"".join(part for frame in encoded.frames() for part in frame) == data
    assert b"".join(part for cut in encoded.cuts() for part in cut) == data
    assert equal(Decoder[Message](ANY).decode(data), message)


@given(message=messages, position=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(max_examples=250)
def test_a_changed_byte_gives_a_message_or_a_protocol_error(
    message: Message, position: int, byte: int
) -> None:
    data = bytearray(Encoder().encode(message).join())
    data[position % len(data)] = byte
    with_error_or_not(bytes(data))


@given(message=messages, cut=st.integers(0, 10_000))
def test_a_message_cut_short_is_a_protocol_error(message: Message, cut: int) -> None:
    data = Encoder().encode(message).join()
    with pytest.raises(ProtocolError):
        Decoder[Message](ANY).decode(data[: cut % len(data)])


@given(message=messages, tail=st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_a_protocol_error(message: Message, tail: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder[Message](ANY).decode(Encoder().encode(message).join() + tail)


@given(data=st.binary(max_size=200))
@example(data=MAGIC + struct.pack("<I", 2**32 - 1))
@example(data=MAGIC + struct.pack("<I", 3) + b"\xc1\xc1\xc1")
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder[Message](ANY).decode(data)


header_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | finite | text | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(ANY)), data=st.data())
@settings(max_examples=150)
def test_headers_of_any_shape_give_a_message_or_a_protocol_error(kind: str, data: st.DataObject) -> None:
    from engram.federation.codec import FIELDS

    fields = {name: data.draw(header_values) for name in FIELDS[kind]}
    tables = data.draw(st.lists(st.lists(st.lists(header_values, max_size=4), max_size=3), max_size=2))
    with_error_or_not(packed([kind, fields, tables]))


def with_error_or_not(data: bytes) -> None:
    try:
        message = Decoder[Message](ANY).decode(data)
    except (ProtocolError, RefusedError):  # a hello may turn out to be another version's
        return
    assert type(message).__name__ in ANY


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({"worker": "w", "protocol": 1}, "w runs an older engram (protocol 1)"),
        ({"worker": "w", "protocol": 7, "version": "9.0", "mood": "good"}, "w runs engram 9.0 (protocol 7)"),
    ],
)
def test_a_hello_of_another_version_is_refused_whatever_its_fields_are(
    fields: dict[str, Any], theirs: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        Decoder[Message](ANY).decode(packed(["Hello", fields, []]))
    assert str(caught.value).startswith(f"{theirs}, the aggregator engram {__version__} (protocol ")


def packed(header: object, body: bytes = b"") -> bytes:
    text: bytes = msgpack.packb(header)
    start = MAGIC + struct.pack("<I", len(text)) + text
    return start + bytes(-len(start) % 16) + body


def update_with(rows: object, body: bytes = b"") -> bytes:
    fields = {"task": 1, "round": 1, "samples": 1, "weights": 0, "metrics": {}, "info": 0}
    return packed(["Update", fields, [rows]], body)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([["w", "object", [1]]], "dtype"),
        ([["w", "O", [1]]], "dtype"),
        ([["w", "float32", [2**40]]], "dimension out of range"),
        ([["w", "float32", [-1]]], "dimension out of range"),
        ([["w", "float32", [True]]], "dimension out of range"),
        ([["w", "float32", [1.0]]], "dimension out of range"),
        ([["w", "float32", [2**30, 2**30]]], "too large"),
        ([["w", "float32", [0, 2**30, 2**30]]], "too large"),
        ([["w", "float32", [1] * 9]], "8 dimensions"),
        ([["w", "float32", [5]]], "cut short"),
        ([["w", "float32", [4]], ["w", "float32", [0]]], "twice"),
        ([["w" * 600, "float32", [4]]], "512"),
        ([["w", "float32"]], "not \\[name, dtype, shape\\]"),
        ({"w": 1}, "not a list"),
    ],
)
def test_bad_tables_are_refused_before_memory_is_taken(rows: object, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Decoder[Message](UP).decode(update_with(rows, bytes(16)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"state": "training"}, "other fields"),
        ({"text": "x", "exit_code": -1, "reason": ""}, "no integer"),
        ({"text": "x", "exit_code": True, "reason": ""}, "no integer"),
        ({"text": 5, "exit_code": 1, "reason": ""}, "is not str"),
        ({"text": "x", "exit_code": 1, "reason": 5}, "is not str"),
        ({"text": "x" * 2**21, "exit_code": 1, "reason": ""}, "is not str of at most"),
    ],
)
def test_bad_fields_are_refused(fields: object, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        Decoder[Message](UP).decode(packed(["Log", fields, []]))


def test_a_peer_may_only_send_what_its_side_says() -> None:
    with pytest.raises(ProtocolError, match="Train"):
        Decoder[Message](UP).decode(Encoder().encode(Train(1, 1, {}, ())).join())
    with pytest.raises(ProtocolError, match="Update"):
        Decoder[Message](DOWN).decode(Encoder().encode(Update(1, 1, 0)).join())


def test_arrays_of_objects_may_not_be_sent() -> None:
    with pytest.raises(ProtocolError, match="object may not travel"):
        Encoder().encode(Update(1, 1, 1, {"w": np.array([{}])}))


def test_big_endian_and_strided_arrays_arrive_as_values() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    message = Decoder[Message](UP).decode(Encoder().encode(Update(1, 1, 1, {"w": array})).join())
    assert isinstance(message, Update)
    np.testing.assert_array_equal(message.weights["w"], array)
    assert message.weights["w"].dtype == np.dtype("<f4")


def test_numpy_scalars_may_stand_for_numbers() -> None:
    metrics: Any = {"loss": np.float32(0.5)}
    samples: Any = np.int64(3)
    message = Update(1, 1, samples, metrics=metrics)
    assert Decoder[Message](UP).decode(Encoder().encode(message).join()) == Update(1, 1, 3, {}, {"loss": 0.5})


def test_large_messages_are_sent_in_place_in_frames_of_one_size() -> None:
    array = np.zeros(CHUNK, np.float32)
    encoded = Encoder().encode(Update(1, 1, 1, {"small": np.zeros(3), "large": array}))
    frames = list(encoded.frames())
    sizes = [sum(len(part) for part in frame) for frame in frames]
    assert sizes == [CHUNK] * 4 + [encoded.size - 4 * CHUNK]
    assert np.shares_memory(np.frombuffer(frames[0][-1], np.uint8), array)
    assert [len(list(frame)) for frame in Encoder().encode(Update(1, 1, 1, {"w": np.zeros(3)})).frames()] == [
        1
    ]


def test_decoded_arrays_are_views_that_cannot_be_written() -> None:
    data = Encoder().encode(Update(1, 1, 1, {"w": np.ones(4, np.float32), "e": np.zeros(0)})).join()
    message = Decoder[Message](UP).decode(data)
    assert isinstance(message, Update)
    assert not any(array.flags.writeable for array in message.weights.values())
    assert np.shares_memory(message.weights["w"], np.frombuffer(data, np.uint8))


def test_the_same_order_is_encoded_once_for_all_connections() -> None:
    common = Common()
    first, second = Encoder(common), Encoder(common)
    weights = {"w": np.ones(3, np.float32)}
    train = Train(1, 1, weights, (0, 1))
    encoded = first.encode(train)
    assert second.encode(Train(1, 1, weights, (0, 1))) is encoded
    others: list[Message] = [
        Train(1, 2, weights, (0, 1)),
        Train(1, 1, {"w": np.ones(3, np.float32)}, (0, 1)),
        Evaluate(1, 1, weights, (0, 1)),
        Train(1, 1, weights, (0, 1), {"teacher": weights}),
        Update(1, 1, 1, weights),
    ]
    for message in others:
        assert equal(Decoder[Message](ANY).decode(second.encode(message).join()), message)
    assert first.encode(train) is not encoded


class TestShared:
    """Groups that a connection has carried are not sent again."""

    teacher: ClassVar[Tensors] = {"w": np.ones((100, 100), np.float32)}

    def test_the_second_time_only_the_digest_goes(self) -> None:
        encoder, decoder = Encoder(), Decoder[Message](DOWN)
        first = encoder.encode(Train(1, 1, {}, (), {"teacher": self.teacher}))
        second = encoder.encode(Train(1, 2, {}, (), {"model": self.teacher}))
        assert first.size > 40_000
        assert second.size < 300
        decoder.decode(first.join())
        message = decoder.decode(second.join())
        assert isinstance(message, Train)
        assert equal(message.shared, {"model": self.teacher})

    def test_a_new_connection_carries_it_again(self) -> None:
        common = Common()
        message = Train(1, 1, {}, (), {"teacher": self.teacher})
        sizes = [Encoder(common).encode(message).size for _ in range(2)]
        assert sizes[0] == sizes[1] == size_of(message)
        again = Encoder(common)
        again.encode(message)
        with pytest.raises(ProtocolError, match="never sent on this connection"):
            Decoder[Message](DOWN).decode(again.encode(message).join())

    def test_changed_content_is_sent_again(self) -> None:
        encoder = Encoder()
        encoder.encode(Train(1, 1, {}, (), {"teacher": self.teacher}))
        changed = {"w": np.full((100, 100), 2, np.float32)}
        assert encoder.encode(Train(1, 2, {}, (), {"teacher": changed})).size > 40_000

    def test_common_tell_names_dtypes_and_shapes_apart(self) -> None:
        zeros = np.zeros(4, np.float32)
        groups: list[Tensors] = [
            {"a": zeros},
            {"b": zeros},
            {"a": zeros.reshape(2, 2)},
            {"a": zeros.view(np.int32)},
            {"a": zeros[:2], "b": zeros[2:]},
        ]
        assert len({digest_of(group) for group in groups}) == len(groups)

    def test_both_sides_forget_the_same_groups(self) -> None:
        encoder, decoder = Encoder(), Decoder[Message](DOWN)
        rng = np.random.default_rng(0)
        groups = [{"w": np.full(3, value, np.float32)} for value in range(12)]
        for step in range(400):
            chosen = rng.choice(len(groups), size=3, replace=False)
            shared: Shared = {str(index): groups[index] for index in chosen}
            message = Train(1, step, {}, (), shared) if step % 5 else Ack(1, step)
            assert equal(decoder.decode(encoder.encode(message).join()), message)

    def test_a_group_that_orders_do_not_use_any_more_is_forgotten(self) -> None:
        encoder = Encoder()
        order = Train(1, 1, {}, (), {"teacher": self.teacher})
        other = Train(1, 2, {}, ())
        full = encoder.encode(order).size
        encoder.encode(other)
        assert encoder.encode(order).size < 300
        for _ in range(3):
            encoder.encode(other)
        assert encoder.encode(order).size == full

    def test_digests_are_computed_once_while_arrays_live(self, monkeypatch: pytest.MonkeyPatch) -> None:
        digests, group = Digests(), frozen(self.teacher)
        first = digests.of(group)
        monkeypatch.setattr("engram.federation.carried.digest_of", lambda group: b"new")
        assert digests.of(dict(group)) == first
        assert digests.of({"w": np.array(group["w"])}) == b"new"
