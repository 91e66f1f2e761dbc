from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ProtocolError
from engram.federation.codec import UP, Decoder, Encoder, size_in_start
from engram.federation.messages import Message, Update
from engram.federation.pieces import HEADER, Incoming, Room, header_of, is_piece, pieces_of


def incoming(size: int, number: int = 7) -> Incoming:
    return Incoming(number, Room(1).lend(size), 0.0)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=10), st.integers(1, 2**32 - 1))
def test_pieces_put_together_are_the_message(parts: list[bytes], number: int) -> None:
    whole = b"".join(parts)
    target = incoming(len(whole), number)
    for piece in map(b"".join, pieces_of(number, iter([part] for part in parts))):
        assert is_piece(piece)
        assert not target.complete
        assert target.take(piece, 5.0)
    assert target.complete
    assert bytes(target.data) == whole
    assert target.heard == 5.0


def test_pieces_of_an_offer_that_lost_its_room_are_passed_over() -> None:
    target = incoming(4)
    [stale] = pieces_of(6, iter([[b"old!"]]))
    assert not target.take(b"".join(stale), 1.0)
    assert target.heard == 0.0
    assert not target.complete


@pytest.mark.parametrize(
    ("offset", "data"),
    [(1, b"a"), (2**60, b"a"), (0, b"more"), (0, b"")],
    ids=["gap", "far", "too-much", "nothing"],
)
def test_a_piece_that_does_not_fit_is_a_protocol_error(offset: int, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        incoming(3).take(HEADER.pack(b"ENGP", 7, offset) + data, 0.0)


def test_a_piece_after_the_last_or_without_a_header_is_a_protocol_error() -> None:
    target = incoming(2)
    assert target.take(HEADER.pack(b"ENGP", 7, 0) + b"ab", 0.0)
    with pytest.raises(ProtocolError, match="from byte 0 instead of 2"):
        target.take(HEADER.pack(b"ENGP", 7, 0) + b"ab", 0.0)
    with pytest.raises(ProtocolError):
        header_of(b"ENGP")


def test_memory_is_lent_again_only_when_nobody_looks_at_it() -> None:
    room = Room(2)
    data = Encoder().encode(Update(1, 1, 3, {"w": np.arange(4, dtype=np.float32)})).join()
    target = Incoming(1, room.lend(len(data)), 0.0)
    target.add(data)
    message = Decoder[Message](UP).decode(target.data)
    target.forget()
    assert isinstance(message, Update)
    other = room.lend(len(data))
    assert not np.shares_memory(other, message.weights["w"])
    kept = message.weights["w"][1:]
    del message, other
    third = room.lend(len(data))
    assert not np.shares_memory(third, kept)
    address = kept.ctypes.data
    del kept, third
    lent = [room.lend(len(data)) for _ in range(2)]
    starts = [memory.ctypes.data for memory in lent]
    assert any(start <= address < start + len(data) for start in starts)


def test_memory_that_is_too_small_is_let_go() -> None:
    room = Room(2)
    room.lend(10)
    large = room.lend(200_000)
    assert large.size == 200_000
    address = large.ctypes.data
    del large
    again = room.lend(100_000)
    assert (again.size, again.ctypes.data) == (100_000, address)


def test_the_size_of_a_message_is_in_its_start() -> None:
    weights = {"w": np.zeros((3, 5), np.float32), "n": np.array(3), "e": np.zeros((0, 2))}
    data = Encoder().encode(Update(1, 1, 3, weights, {"loss": 1.0}, {"sum": np.zeros(3)})).join()
    sizes = {size_in_start(data[:length]) for length in range(8, len(data) + 1)}
    assert sizes == {None, len(data)}
    with pytest.raises(ProtocolError):
        size_in_start(b"garbage!")
